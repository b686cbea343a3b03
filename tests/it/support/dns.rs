//! A DNS server of the test's own, on loopback: it answers what it was told, refuses what it was told to refuse, and says
//! of every other name that it does not exist. It knows the root, as any resolver does, unless it is told not to.

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, NS, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

#[derive(Default)]
struct Zone {
    records: BTreeMap<String, Vec<RData>>,
    failing: BTreeSet<String>,
    silent: BTreeSet<String>,
    is_cut_off: bool,
    /// Questions, by name.
    asked: BTreeMap<String, usize>,
}

pub struct DnsServer {
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    serving: JoinHandle<()>,
}

impl DnsServer {
    pub async fn start() -> Self {
        let socket = UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = socket.local_addr().expect("an address");
        let zone = Arc::new(Mutex::new(Zone::default()));
        let serving = tokio::spawn(serve(socket, zone.clone()));
        Self { address, zone, serving }
    }

    /// As one record, in character-strings of 255 octets.
    pub fn txt(&self, name: &str, text: &str) -> &Self {
        let parts: Vec<&[u8]> = text.as_bytes().chunks(255).collect();
        self.add(name, RData::TXT(TXT::from_bytes(parts)))
    }

    pub fn address_of(&self, name: &str, address: &str) -> &Self {
        let data = match address.parse().expect("an address") {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        self.add(name, data)
    }

    pub fn alias(&self, name: &str, target: &str) -> &Self {
        self.add(name, RData::CNAME(CNAME(absolute(target))))
    }

    /// SERVFAIL.
    pub fn fail(&self, name: &str) -> &Self {
        self.zone.lock().unwrap().failing.insert(name.to_owned());
        self
    }

    /// No answer at all.
    pub fn stay_silent_about(&self, name: &str) -> &Self {
        self.zone.lock().unwrap().silent.insert(name.to_owned());
        self
    }

    /// The end of [`DnsServer::fail`] and of [`DnsServer::stay_silent_about`].
    pub fn answer_again(&self, name: &str) -> &Self {
        let mut zone = self.zone.lock().unwrap();
        zone.failing.remove(name);
        zone.silent.remove(name);
        self
    }

    /// How often.
    pub fn asked(&self, name: &str) -> usize {
        self.zone.lock().unwrap().asked.get(name).copied().unwrap_or_default()
    }

    /// It knows no root servers, and says of every name that it does not exist.
    pub fn cut_off(&self) -> &Self {
        self.zone.lock().unwrap().is_cut_off = true;
        self
    }

    pub fn forget(&self, name: &str) -> &Self {
        self.zone.lock().unwrap().records.remove(name);
        self
    }

    fn add(&self, name: &str, data: RData) -> &Self {
        self.zone.lock().unwrap().records.entry(name.to_owned()).or_default().push(data);
        self
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn absolute(name: &str) -> Name {
    Name::from_ascii(format!("{name}.")).expect("a name")
}

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut octets = [0; 4096];
    while let Ok((length, client)) = socket.recv_from(&mut octets).await {
        let Ok(query) = Message::from_vec(&octets[..length]) else { continue };
        if let Some(reply) = zone.lock().unwrap().answer(&query) {
            let _the_client_may_have_left = socket.try_send_to(&reply.to_vec().expect("a message"), client);
        }
    }
}

impl Zone {
    fn answer(&mut self, query: &Message) -> Option<Message> {
        let question = query.queries.first()?;
        let name = question.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
        *self.asked.entry(name.clone()).or_default() += 1;
        if self.silent.contains(&name) {
            return None;
        }
        let mut reply = Message::response(query.metadata.id, OpCode::Query);
        reply.metadata.recursion_available = true;
        reply.add_query(question.clone());
        if self.failing.contains(&name) {
            reply.metadata.response_code = ResponseCode::ServFail;
            return Some(reply);
        }
        if name.is_empty() && !self.is_cut_off {
            reply.add_answer(Record::from_rdata(Name::root(), 60, RData::NS(NS(absolute("a.root-servers.net")))));
            return Some(reply);
        }
        let mut name = name;
        let mut is_known = false;
        // An alias is followed, as a resolver does.
        for _ in 0..5 {
            let Some(records) = self.records.get(&name).filter(|_| !self.is_cut_off) else { break };
            is_known = true;
            let wanted = records.iter().filter(|data| data.record_type() == question.query_type());
            reply.add_answers(wanted.map(|data| Record::from_rdata(absolute(&name), 60, data.clone())));
            let Some(RData::CNAME(target)) = records.iter().find(|data| data.record_type() == RecordType::CNAME) else {
                break;
            };
            if question.query_type() == RecordType::CNAME {
                break;
            }
            reply.add_answer(Record::from_rdata(absolute(&name), 60, RData::CNAME(target.clone())));
            name = target.0.to_ascii().trim_end_matches('.').to_owned();
        }
        if !is_known {
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        Some(reply)
    }
}
