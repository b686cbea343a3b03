//! Opens connections to servers: over a Unix socket, TCP, or TLS as tls.rs builds it. Knows nothing of what is sent.

use super::options::{RedisLogin, RedisOptions, ServerAddress};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ErrorKind, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError};
use rustls::pki_types::ServerName;
use std::io;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Messages of a channel that wait to be handled.
const MOST_HEARD: usize = 1024;

/// Ends its task when it is dropped.
#[derive(Debug)]
pub(super) struct Task(JoinHandle<()>);

impl Task {
    pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The connection ends with the task.
pub(super) async fn connect(
    address: &ServerAddress,
    options: &RedisOptions,
) -> Result<(MultiplexedConnection, Task), RedisError> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(options.timeout));
    let login = login(options.login.as_ref(), options.database);
    let opening = async {
        let stream = open(address, options).await?;
        MultiplexedConnection::new_with_config(&login, stream, config).await
    };
    let (connection, driver) = timeout(options.timeout, opening).await.map_err(|_| timed_out())??;
    Ok((connection, Task::spawn(driver)))
}

/// What is published on a channel, until the connection breaks.
pub(super) async fn listen(
    address: &ServerAddress,
    options: &RedisOptions,
    channel: &str,
) -> Result<(Receiver<PushInfo>, MultiplexedConnection, Task), RedisError> {
    let (heard, messages) = mpsc::channel(MOST_HEARD);
    // They are hints: what does not fit is not needed.
    let hear = move |message| match heard.try_send(message) {
        Err(TrySendError::Closed(_)) => Err(()),
        Ok(()) | Err(TrySendError::Full(_)) => Ok(()),
    };
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(options.timeout)).set_push_sender(hear);
    let login = login(options.login.as_ref(), options.database).set_protocol(ProtocolVersion::RESP3);
    let opening = async {
        let stream = open(address, options).await?;
        MultiplexedConnection::new_with_config(&login, stream, config).await
    };
    let (mut connection, driver) = timeout(options.timeout, opening).await.map_err(|_| timed_out())??;
    let driver = Task::spawn(driver);
    connection.subscribe(channel).await?;
    Ok((messages, connection, driver))
}

fn timed_out() -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, "the connection was not established in time").into()
}

fn login(login: Option<&RedisLogin>, database: u32) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default().set_db(database.into());
    if let Some(RedisLogin { user, password }) = login {
        info = info.set_password(password.reveal());
        if let Some(user) = user {
            info = info.set_username(user);
        }
    }
    info
}

/// A server that answers with something else than TLS, or whose certificate is not accepted, is not one that does not answer.
fn of_tls(error: io::Error) -> RedisError {
    match error.kind() {
        io::ErrorKind::InvalidData => (ErrorKind::InvalidClientConfig, "TLS", error.to_string()).into(),
        _ => error.into(),
    }
}

async fn open(address: &ServerAddress, options: &RedisOptions) -> Result<Box<dyn Stream>, RedisError> {
    match address {
        ServerAddress::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        ServerAddress::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            let Some(tls) = &options.tls else { return Ok(Box::new(stream)) };
            let name = ServerName::try_from(host.clone()).map_err(|_| {
                RedisError::from((ErrorKind::InvalidClientConfig, "the server's name cannot be in a certificate"))
            })?;
            let secured = TlsConnector::from(tls.config.clone()).connect(name, stream).await;
            Ok(Box::new(secured.map_err(of_tls)?))
        }
    }
}
