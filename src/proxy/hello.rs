use crate::name::HostName;
pub(crate) struct ClientHello {
    pub(crate) server_name: Option<HostName>,
}
pub(crate) enum Hello {
    Incomplete,
    Tls(ClientHello),
    NotTls,
    Malformed(&'static str),
    TooLarge,
}
pub(crate) fn read_hello(_b: &[u8]) -> Hello {
    Hello::NotTls
}
