//! Each request and each answer as a line of JSON: `{"protocol":4,"program":"0.1.0","request":…}`, and back with `"response"`.
//!
//! Every version can read `protocol` and `program`, whatever else has changed, so two incompatible versions at least
//! recognise that they are incompatible.

use super::protocol::{Blame, ControlRefusal, ControlRequest, ControlResponse};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Increased whenever an older program would misunderstand a line.
const PROTOCOL: u32 = 4;
const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// In octets, including the end of the line.
pub(super) const MAX_REQUEST: usize = 64 * 1024;

impl ControlRefusal {
    /// The line is longer than [`MAX_REQUEST`], or ends too early.
    pub(super) fn no_whole_line() -> Self {
        Self::new(Blame::Request, format!("a request is one line of at most {MAX_REQUEST} octets"))
    }

    fn other_version(header: &LineHeader) -> Self {
        let program = header.program.as_deref().unwrap_or("of another version");
        Self::new(
            Blame::Protocol,
            format!(
                "the other side is waxseal {program} and speaks protocol {}, this is waxseal {PROGRAM} with protocol \
                 {PROTOCOL}: use the program that the running gateway was started from, or restart the gateway",
                header.protocol
            ),
        )
    }
}

#[derive(Deserialize)]
struct LineHeader {
    protocol: u32,
    program: Option<String>,
}

#[derive(Serialize)]
struct OutgoingLine<'a> {
    protocol: u32,
    program: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a ControlRequest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a ControlResponse>,
}

#[derive(Deserialize)]
struct IncomingLine<T> {
    protocol: u32,
    #[serde(alias = "request", alias = "response")]
    body: T,
}

impl ControlRequest {
    pub fn to_line(&self) -> Vec<u8> {
        line(Some(self), None)
    }

    pub fn from_line(line: &[u8]) -> Result<Self, ControlRefusal> {
        parse(line)
    }
}

impl ControlResponse {
    /// Without the [`trailer`](Self::trailer).
    pub fn to_line(&self) -> Vec<u8> {
        line(None, Some(self))
    }

    pub fn from_line(line: &[u8]) -> Result<Self, ControlRefusal> {
        parse(line)
    }
}

fn line(request: Option<&ControlRequest>, response: Option<&ControlResponse>) -> Vec<u8> {
    let outgoing = OutgoingLine { protocol: PROTOCOL, program: PROGRAM, request, response };
    // Maps have only string keys here, and writing to memory does not fail; an empty line would be refused by any
    // reader.
    let mut line = serde_json::to_vec(&outgoing).unwrap_or_default();
    line.push(b'\n');
    line
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, ControlRefusal> {
    match serde_json::from_slice::<IncomingLine<T>>(line) {
        Ok(incoming) if incoming.protocol == PROTOCOL => Ok(incoming.body),
        result => Err(match (serde_json::from_slice::<LineHeader>(line), result) {
            (Ok(header), _) if header.protocol != PROTOCOL => ControlRefusal::other_version(&header),
            (_, Err(error)) => ControlRefusal::new(Blame::Request, format!("the line is not understood: {error}")),
            _ => ControlRefusal::no_whole_line(),
        }),
    }
}
