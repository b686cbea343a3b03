//! The networks of this machine or container, for help texts that name what to write. IPv4 only, from Linux's
//! `/proc/net/route`, proc(5). A network is not trusted for being in that list.

use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// Interface and network, without loopback. Empty if the system does not list them.
pub fn local_networks() -> Vec<(String, Ipv4Net)> {
    std::fs::read_to_string("/proc/net/route").map(|table| networks(&table)).unwrap_or_default()
}

/// Reads the lines without a gateway and with a mask, which are the interfaces' own networks. Numbers are hexadecimal, in
/// the machine's byte order.
fn networks(table: &str) -> Vec<(String, Ipv4Net)> {
    let network = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [interface, destination, gateway, _, _, _, _, mask, ..] = fields.as_slice() else { return None };
        let address = |text: &str| Some(Ipv4Addr::from(u32::from_str_radix(text, 16).ok()?.to_ne_bytes()));
        let network = Ipv4Net::with_netmask(address(destination)?, address(mask)?).ok()?;
        let is_own = address(gateway)?.is_unspecified() && (1..32).contains(&network.prefix_len());
        (is_own && *interface != "lo").then(|| ((*interface).to_owned(), network))
    };
    table.lines().skip(1).filter_map(network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_network_is_read_from_the_table_of_routes() {
        let number = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let line = |interface: &str, to, by, mask| {
            format!("{interface}\t{}\t{}\t0003\t0\t0\t0\t{}\t0\t0\t0\n", number(to), number(by), number(mask))
        };
        let any = [0; 4];
        let table = [
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n".to_owned(),
            line("eth0", any, [172, 18, 0, 1], any),
            line("eth0", [172, 18, 0, 0], any, [255, 255, 0, 0]),
            line("eth1", [10, 1, 2, 0], any, [255, 255, 255, 0]),
            line("eth1", [192, 0, 2, 7], any, [255; 4]),
            line("lo", [127, 0, 0, 0], any, [255, 0, 0, 0]),
            "odd\n".to_owned(),
        ]
        .concat();
        let found: Vec<_> = networks(&table).into_iter().map(|(name, network)| format!("{name} {network}")).collect();
        assert_eq!(found, ["eth0 172.18.0.0/16", "eth1 10.1.2.0/24"]);
        assert!(networks("").is_empty());
    }
}
