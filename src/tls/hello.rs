//! What a client asks for, known before a configuration is chosen for it.

use rustls::CipherSuite;
use rustls::server::Acceptor;

use super::TlsError;

/// What of a ClientHello is needed to choose a site (RFC 8446, section 4.1.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Hello {
    /// The server's name, lower case (RFC 6066, section 3).
    pub(crate) server_name: Option<Box<str>>,
    /// It has come down to a version below TLS 1.3, after an attempt at a higher one has failed (RFC 7507).
    pub(crate) is_fallback: bool,
}

/// `TLS_FALLBACK_SCSV` (RFC 7507, section 2).
const FALLBACK: u16 = 0x5600;

/// Whether a client says so: suites of TLS 1.3 are offered by none that offers less.
fn is_fallback(suites: &[CipherSuite]) -> bool {
    let mut numbers = suites.iter().map(|suite| u16::from(*suite));
    let tls13 = numbers.clone().any(|number| number >> 8 == 0x13);
    !tls13 && numbers.any(|number| number == FALLBACK)
}

/// Reads a ClientHello ahead of the connection, which gets the same bytes afterwards.
///
/// rustls can choose a configuration by the ClientHello only for its buffered connections, so its reader is used for the
/// look and thrown away.
#[derive(Default)]
pub(crate) struct Peek(Acceptor);

impl Peek {
    /// Takes the bytes that are new since the last call; `None` when the ClientHello is not complete.
    ///
    /// # Errors
    ///
    /// What came cannot become a handshake. A connection with any configuration fails by it too, and sends the alert.
    pub(crate) fn read(&mut self, mut new: &[u8]) -> Result<Option<Hello>, TlsError> {
        loop {
            match self.0.read_tls(&mut new) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                // The reader's bound, beyond which no ClientHello goes.
                Err(_) => return Err(TlsError::RecordOverflow),
            }
            match self.0.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    let server_name = hello.server_name().map(|name| name.to_ascii_lowercase().into());
                    return Ok(Some(Hello { server_name, is_fallback: is_fallback(hello.cipher_suites()) }));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
}

#[cfg(all(test, any(feature = "tls-aws-lc-rs", feature = "tls-ring")))]
mod tests {
    use super::*;
    use crate::tls::Client;
    use crate::tls::tests::{Authority, provider};
    use rustls::ClientConnection;

    fn hello(name: &'static str) -> Vec<u8> {
        let roots = Authority::new("root").pem();
        let client = Client::builder().provider(provider()).roots_pem(&roots).build().unwrap();
        let mut client = ClientConnection::new(client.config(), name.try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn name_is_known_once_the_last_byte_has_come() {
        let bytes = hello("Cats.Example.com");
        let mut peek = Peek::default();
        let (last, rest) = bytes.split_last().unwrap();
        for byte in rest {
            assert_eq!(peek.read(&[*byte]), Ok(None));
        }
        let hello = peek.read(&[*last]).unwrap().unwrap();
        assert_eq!(hello.server_name.as_deref(), Some("cats.example.com"));
    }

    #[test]
    fn address_is_no_name() {
        let hello = Peek::default().read(&hello("127.0.0.1")).unwrap().unwrap();
        assert_eq!(hello.server_name, None);
    }

    #[test]
    fn fallback_is_what_offers_the_signal_and_nothing_of_tls_1_3() {
        let suites = |numbers: &[u16]| numbers.iter().map(|&number| number.into()).collect::<Vec<_>>();
        assert!(is_fallback(&suites(&[0xc02f, 0x5600])));
        assert!(!is_fallback(&suites(&[0xc02f, 0x1301, 0x5600])));
        assert!(!is_fallback(&suites(&[0xc02f, 0x00ff])));
        assert!(!Peek::default().read(&hello("localhost")).unwrap().unwrap().is_fallback);
    }

    #[test]
    fn plain_http_is_told_from_tls() {
        assert_eq!(Peek::default().read(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Err(TlsError::NotTls));
    }
}
