//! Values that a command takes as arguments or answers: read as `config.toml` reads them, with the same words about
//! mistakes. Reads no file and looks up no name.

use super::file::ProviderName;
use super::value::{Complaint, HostName, Text};
use crate::dkim::dns_domain;
use crate::relay::provider::{self, Preset};
use crate::smtp::Domain;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

pub use super::local_networks::local_networks;
pub use super::masking::is_variable;

/// A provider by its name in the configuration. A host or a title that belongs to one leads to it.
pub fn provider(text: &str) -> Result<&'static Preset, String> {
    let text = text.trim();
    let unknown = match ProviderName::parse(text) {
        Ok(name) => return Ok(name.0),
        Err(complaint) => complaint,
    };
    let squeezed = |text: &str| text.to_lowercase().replace([' ', '-', '_'], "");
    let typed = squeezed(text);
    let is_meant = |preset: &&&'static Preset| {
        let (name, title) = (squeezed(preset.name), squeezed(preset.title));
        typed == name || (typed.len() > 3 && title.contains(&typed)) || (name.len() > 4 && typed.contains(&name))
    };
    match provider::at_host(text).or_else(|| provider::ALL.iter().find(is_meant).copied()) {
        Some(meant) => Err(format!("\"{text}\" is not a valid value; did you mean \"{}\"?", meant.name)),
        // A typing error has its own help.
        None if unknown.help.as_ref().is_some_and(|help| help.starts_with("did you mean")) => Err(in_one_line(unknown)),
        None => Err(format!("{}; any other server is \"smtp\"", in_one_line(unknown))),
    }
}

/// The domain of From addresses: one that DNS can hold, with at least two labels.
pub fn mail_domain(text: &str) -> Result<Domain, String> {
    let text = text.trim().trim_end_matches('.');
    let domain = <Domain as Text>::parse(text).map_err(in_one_line)?;
    if !text.contains('.') || text.parse::<IpAddr>().is_ok() {
        return Err(format!(
            "\"{text}\" is not a domain that mail can come from; write it in full, as in \"example.com\""
        ));
    }
    dns_domain(&domain).map_err(|error| error.to_string())?;
    Ok(domain)
}

/// The gateway's own name, fully qualified.
pub fn full_name(text: &str) -> Result<String, String> {
    let HostName(domain) = HostName::parse(text.trim()).map_err(in_one_line)?;
    if !domain.as_str().contains('.') {
        return Err(format!("\"{domain}\" is not a full name; write it as in \"gateway.example.com\""));
    }
    Ok(domain.to_string())
}

/// The name that the host itself has, if it is a full one.
pub fn own_full_name() -> Option<String> {
    full_name(&super::resolve::own_name()).ok().filter(|name| !name.starts_with("localhost."))
}

pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    SocketAddr::parse(text.trim()).map_err(in_one_line)
}

pub fn network(text: &str) -> Result<IpNet, String> {
    <IpNet as Text>::parse(text.trim()).map_err(in_one_line)
}

fn in_one_line(complaint: Complaint) -> String {
    match complaint.help {
        Some(help) => format!("{}; {help}", complaint.message),
        None => complaint.message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_found_by_what_people_call_it() {
        for preset in provider::ALL {
            assert_eq!(provider(&format!(" {} ", preset.name)).map(|found| found.name), Ok(preset.name));
        }
        for (typed, meant) in [
            ("postmrk", "postmark"),
            ("Postmark", "postmark"),
            ("amazon ses", "ses"),
            ("Amazon", "ses"),
            ("Send-Grid", "sendgrid"),
            ("microsoft 365", "microsoft365"),
            ("smtp.eu.mailgun.org", "mailgun"),
            ("smtp.sendgrid.net", "sendgrid"),
            ("email-smtp.eu-west-1.amazonaws.com", "ses"),
            ("mailgun.com", "mailgun"),
        ] {
            let said = provider(typed).expect_err(typed);
            assert!(said.ends_with(&format!("did you mean \"{meant}\"?")), "{typed}: {said}");
        }
        let said = provider("brevo").expect_err("not known");
        assert!(said.contains("\"postmark\"") && said.ends_with("any other server is \"smtp\""), "{said}");
    }

    #[test]
    fn what_is_not_a_domain_is_refused_with_what_to_write() {
        for (typed, domain) in [
            ("example.com", "example.com"),
            (" Example.COM. ", "Example.COM"),
            ("b\u{fc}cher.example", "b\u{fc}cher.example"),
        ] {
            assert_eq!(mail_domain(typed).map(|domain| domain.to_string()), Ok(domain.to_owned()));
        }
        for (typed, said) in [
            ("reports@example.com", "write \"example.com\""),
            ("https://example.com/", "as in \"example.com\""),
            ("example", "in full"),
            ("localhost", "in full"),
            ("127.0.0.1", "in full"),
            ("[127.0.0.1]", "as in \"example.com\""),
            ("a..b", "as in \"example.com\""),
            ("two words.example", "as in \"example.com\""),
            ("", "as in \"example.com\""),
        ] {
            let complaint = mail_domain(typed).expect_err(typed);
            assert!(complaint.contains(said), "{typed}: {complaint}");
        }
    }

    #[test]
    fn the_gateways_name_is_a_full_one() {
        assert_eq!(full_name("gateway.example.com"), Ok("gateway.example.com".to_owned()));
        for typed in ["box", "", "a b.example", "b\u{fc}cher.example", "[127.0.0.1]"] {
            assert!(full_name(typed).is_err(), "{typed}");
        }
    }
}
