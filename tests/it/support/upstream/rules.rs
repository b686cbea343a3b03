//! What a provider's documents say that it refuses. A client that keeps to them never notices them.

#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// User name and password; `None`: any.
    pub login: Option<(&'static str, &'static str)>,
    /// Connections at once, and what the login on one more is answered.
    pub connections: (usize, &'static str),
    pub messages_per_connection: (usize, &'static str),
    /// Of MAIL's argument; `None` if there is nothing wrong with it.
    pub sender: fn(&str) -> Option<&'static str>,
    /// Of one transaction.
    pub recipients: (usize, &'static str),
    /// Octets.
    pub size: (usize, &'static str),
    /// The reply to the whole message; `None` if nothing is wrong with it.
    pub message: fn(&[u8]) -> Option<&'static str>,
    /// A client without a fully qualified name in EHLO is turned away.
    pub real_names_only: bool,
}

const WITHOUT_LIMIT: (usize, &str) = (usize::MAX, "");

impl Default for Rules {
    fn default() -> Self {
        Self {
            login: None,
            connections: WITHOUT_LIMIT,
            messages_per_connection: WITHOUT_LIMIT,
            sender: |_| None,
            recipients: WITHOUT_LIMIT,
            size: WITHOUT_LIMIT,
            message: |_| None,
            real_names_only: false,
        }
    }
}

impl Rules {
    pub fn about_name(&self, ehlo: &str) -> Option<&'static str> {
        let name = ehlo.split(' ').nth(1).unwrap_or_default();
        let is_real = name.contains('.') && !name.starts_with('[');
        (self.real_names_only && !is_real).then_some("421 4.7.0 Try again later, closing connection. (EHLO)")
    }

    /// `now`: connections that exist, this one too.
    pub fn about_login(&self, username: &str, password: &str, now: usize) -> Option<&'static str> {
        match self.login {
            Some(login) if login != (username, password) => Some("535 5.7.8 Authentication credentials invalid"),
            _ => (now > self.connections.0).then_some(self.connections.1),
        }
    }

    /// `before`: messages that this connection has carried. `argument`: of MAIL.
    pub fn about_mail(&self, before: usize, argument: &str) -> Option<&'static str> {
        let many = (before >= self.messages_per_connection.0).then_some(self.messages_per_connection.1);
        many.or_else(|| (self.sender)(argument))
    }

    /// `before`: recipients that this transaction has.
    pub fn about_recipient(&self, before: usize) -> Option<&'static str> {
        (before >= self.recipients.0).then_some(self.recipients.1)
    }

    pub fn about_message(&self, data: &[u8]) -> Option<&'static str> {
        if data.len() > self.size.0 { Some(self.size.1) } else { (self.message)(data) }
    }
}
