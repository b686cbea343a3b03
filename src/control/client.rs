//! The client side of the control socket: one connection for each request, so that a question to the user blocks no
//! one.

use super::protocol::{ControlRefusal, ControlRequest, ControlResponse, MessageContent};
use super::socket::ControlAddress;
use bytes::Bytes;
use std::io::{self, ErrorKind};
use std::path::Path;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

pub async fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    let address = ControlAddress::of(data_dir)?;
    UnixStream::connect(&address.path).await
}

/// The answer of the gateway that uses this folder. The inner error means that this program does not understand the
/// answer.
pub async fn ask(data_dir: &Path, request: &ControlRequest) -> io::Result<Result<ControlResponse, ControlRefusal>> {
    let mut stream = connect(data_dir).await?;
    let (input, mut output) = stream.split();
    output.write_all(&request.to_line()).await?;
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "it closed the connection and may be stopping"));
    }
    let mut response = ControlResponse::from_line(&line);
    if let Ok(ControlResponse::Content(Some(content))) = &mut response {
        content.data = read_content(&mut input, content).await?;
    }
    Ok(response)
}

async fn read_content(input: &mut (impl AsyncReadExt + Unpin), content: &MessageContent) -> io::Result<Bytes> {
    let mut data = Vec::new();
    input.take(content.octets).read_to_end(&mut data).await?;
    if u64::try_from(data.len()) != Ok(content.octets) {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "the message broke off"));
    }
    Ok(data.into())
}
