//! What both sides agree on in the opening handshake (RFC 7692, sections 5 and 7.1).

use super::super::Side;
use super::super::extensions::{self, Extension, Value};
use std::fmt;

/// How permessage-deflate (RFC 7692) is used, and what is asked of the peer.
///
/// ```
/// let mut deflate = lodger::ws::deflate::Deflate::default();
/// deflate.level = 6;
/// deflate.threshold = 1024;
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Deflate {
    /// How hard to try, from 1 (fast) to 9 (small); what is outside counts as the nearest. Default 3.
    pub level: u8,
    /// Messages of fewer bytes go uncompressed; with `usize::MAX`, all of them. Default 256.
    pub threshold: usize,
    /// The server forgets its last message before it compresses the next, so that all connections can share a compressor.
    /// A client asks for it. Default true.
    pub server_no_context_takeover: bool,
    /// The same for the client; a server demands it. Default true.
    pub client_no_context_takeover: bool,
    /// The server's messages refer back by at most so many bytes, as a power of two: 8 to 15; what is outside counts as
    /// the nearest. Nothing is ever compressed with 8, which the library underneath cannot do: a server takes 9 where it
    /// is not bound, and declines an offer that binds it to 8. Default 15.
    pub server_max_window_bits: u8,
    /// The same for the client's messages. A client takes 9 for 8, and sends everything uncompressed to a server that binds
    /// it to 8. A server can ask only those clients that say that they can be asked. Default 15.
    pub client_max_window_bits: u8,
    /// How much memory a compressor takes for what it has not written yet, from 1 to 9; what is outside counts as the
    /// nearest. Default 8.
    pub mem_level: u8,
}

impl Default for Deflate {
    fn default() -> Self {
        Self {
            level: 3,
            threshold: 256,
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
            mem_level: 8,
        }
    }
}

/// Parameters of permessage-deflate: of an offer, or, as the answer says them, what has been agreed on (RFC 7692, section
/// 7.1). Written out, it is an element of Sec-WebSocket-Extensions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Parameters {
    /// The server does not refer to earlier messages (section 7.1.1.1).
    pub server_no_context_takeover: bool,
    /// The client does not (section 7.1.1.2).
    pub client_no_context_takeover: bool,
    /// The server's window (section 7.1.2.1), if it is bound.
    pub server_max_window_bits: Option<u8>,
    /// The client's window (section 7.1.2.2), if it is bound.
    pub client_max_window_bits: Option<u8>,
}

impl Parameters {
    /// Whether what this side sends may refer to its earlier messages.
    pub fn takes_over(&self, side: Side) -> bool {
        match side {
            Side::Client => !self.client_no_context_takeover,
            Side::Server => !self.server_no_context_takeover,
        }
    }

    /// How far back what this side sends may refer: the power of two, 8 to 15.
    pub fn window_bits(&self, side: Side) -> u8 {
        let bound = match side {
            Side::Client => self.client_max_window_bits,
            Side::Server => self.server_max_window_bits,
        };
        bound.unwrap_or(MAX_BITS)
    }
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut element = extensions::Formatter::new(f, NAME)?;
        element.flag(SERVER_NO_CONTEXT_TAKEOVER, self.server_no_context_takeover)?;
        element.flag(CLIENT_NO_CONTEXT_TAKEOVER, self.client_no_context_takeover)?;
        element.number(SERVER_MAX_WINDOW_BITS, self.server_max_window_bits)?;
        element.number(CLIENT_MAX_WINDOW_BITS, self.client_max_window_bits)
    }
}

/// What a client offers. Written out, it is the value of Sec-WebSocket-Extensions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Offer(Deflate);

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = |bits| Some(bits).filter(|&bits| bits < MAX_BITS);
        let Deflate { server_no_context_takeover, client_no_context_takeover, .. } = self.0;
        let server_max_window_bits = bound(self.0.window_bits(Side::Server));
        let client_max_window_bits = bound(self.0.window_bits(Side::Client));
        let parameters = Parameters {
            server_no_context_takeover,
            client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits,
        };
        parameters.fmt(f)?;
        // Without a value it only says that the server may bind us.
        match client_max_window_bits {
            None => write!(f, "; {CLIENT_MAX_WINDOW_BITS}"),
            Some(_) => Ok(()),
        }
    }
}

/// What a server's Sec-WebSocket-Extensions does wrong. The client has to fail the connection (RFC 6455, section 4.1; RFC
/// 7692, section 5.1).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ResponseError {
    /// It is against the grammar (RFC 6455, section 9.1).
    Malformed,
    /// It accepts what was not offered, or the same twice.
    NotOffered,
    /// A parameter is unknown, comes twice, or has no value, or an invalid one (RFC 7692, section 7.1).
    Parameter,
    /// It does not grant what the offer asked for.
    NotGranted,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed list of extensions",
            Self::NotOffered => "extension accepted that was not offered",
            Self::Parameter => "invalid parameter of an extension",
            Self::NotGranted => "extension accepted without a parameter that was asked for",
        })
    }
}

impl std::error::Error for ResponseError {}

impl Deflate {
    /// The server's answer to the values of all Sec-WebSocket-Extensions fields of a request: the first offer that can be
    /// accepted (RFC 7692, section 5). Unknown extensions, malformed elements and offers with an unknown or invalid
    /// parameter are passed over. `None` if nothing is accepted: the answer has no such field then.
    ///
    /// ```
    /// use lodger::ws::deflate::Deflate;
    ///
    /// let offers = [&b"mux, permessage-deflate; client_max_window_bits; server_max_window_bits=10"[..]];
    /// let accepted = Deflate::default().accept(offers).unwrap();
    /// let answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10";
    /// assert_eq!(accepted.to_string(), answer);
    /// ```
    pub fn accept<'a>(&self, values: impl IntoIterator<Item = &'a [u8]>) -> Option<Parameters> {
        extensions::list(values)
            .flatten()
            .filter(|extension| extension.name == NAME.as_bytes())
            .find_map(|extension| self.answer(&Listed::read(extension)?))
    }

    /// The client's offer.
    pub fn offer(&self) -> Offer {
        Offer(*self)
    }

    /// The client's check of the values of all Sec-WebSocket-Extensions fields of a response to [`offer`](Self::offer).
    /// `None` if there are none: the server has declined.
    ///
    /// # Errors
    ///
    /// As in [`ResponseError`].
    pub fn accepted<'a>(
        &self,
        values: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Option<Parameters>, ResponseError> {
        let mut found = None;
        for extension in extensions::list(values) {
            let extension = extension.map_err(|_| ResponseError::Malformed)?;
            if extension.name != NAME.as_bytes() || found.is_some() {
                return Err(ResponseError::NotOffered);
            }
            let listed = Listed::read(extension).ok_or(ResponseError::Parameter)?;
            found = Some(self.check(&listed)?);
        }
        Ok(found)
    }

    /// The same for a connection that is to hold nothing between messages.
    pub(super) fn without_context_takeover(self) -> Self {
        Self { server_no_context_takeover: true, client_no_context_takeover: true, ..self }
    }

    /// How far back what this side sends is to refer, as these options have it.
    pub(super) fn window_bits(&self, side: Side) -> u8 {
        let bits = match side {
            Side::Client => self.client_max_window_bits,
            Side::Server => self.server_max_window_bits,
        };
        bits.clamp(MIN_BITS, MAX_BITS)
    }

    /// What is answered to an offer; `None` if it is declined.
    fn answer(&self, offer: &Listed) -> Option<Parameters> {
        let own = self.window_bits(Side::Server).max(MIN_OWN_BITS);
        let server_max_window_bits = match offer.server_max_window_bits {
            Bits::Missing => None,
            Bits::Number(bits @ MIN_OWN_BITS..) => Some(bits.min(own)),
            Bits::Flag | Bits::Number(_) => return None,
        };
        // Only a client that mentions it can be bound (section 7.1.2.2).
        let wish = self.window_bits(Side::Client);
        let client_max_window_bits = match offer.client_max_window_bits {
            Bits::Missing => None,
            Bits::Flag => Some(wish).filter(|&bits| bits < MAX_BITS),
            Bits::Number(bits) => Some(bits.min(wish)),
        };
        Some(Parameters {
            server_no_context_takeover: offer.server_no_context_takeover || self.server_no_context_takeover,
            client_no_context_takeover: offer.client_no_context_takeover || self.client_no_context_takeover,
            server_max_window_bits,
            client_max_window_bits,
        })
    }

    /// Holds a response against the offer.
    fn check(&self, response: &Listed) -> Result<Parameters, ResponseError> {
        let number = |bits| match bits {
            Bits::Missing => Ok(None),
            Bits::Flag => Err(ResponseError::Parameter),
            Bits::Number(bits) => Ok(Some(bits)),
        };
        let parameters = Parameters {
            server_no_context_takeover: response.server_no_context_takeover,
            client_no_context_takeover: response.client_no_context_takeover,
            server_max_window_bits: number(response.server_max_window_bits)?,
            client_max_window_bits: number(response.client_max_window_bits)?,
        };
        let wider = parameters.window_bits(Side::Server) > self.window_bits(Side::Server);
        if wider || (self.server_no_context_takeover && !parameters.server_no_context_takeover) {
            return Err(ResponseError::NotGranted);
        }
        // The value of an offer is a bound for that of the response (section 7.1.2.2).
        if parameters.client_max_window_bits.is_some_and(|bits| bits > self.window_bits(Side::Client)) {
            return Err(ResponseError::Parameter);
        }
        Ok(parameters)
    }
}

/// What an element lists.
#[derive(Default)]
struct Listed {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Bits,
    client_max_window_bits: Bits,
}

/// A parameter that has a number, or may have one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Bits {
    #[default]
    Missing,
    Flag,
    Number(u8),
}

impl Listed {
    /// `None` if a parameter is unknown, comes twice, or has a value that it cannot have (section 7.1).
    fn read(extension: Extension<'_>) -> Option<Self> {
        let mut listed = Self::default();
        for parameter in extension.parameters() {
            let is = |name: &str| parameter.name == name.as_bytes();
            if is(SERVER_NO_CONTEXT_TAKEOVER) {
                set_flag(&mut listed.server_no_context_takeover, parameter.value)?;
            } else if is(CLIENT_NO_CONTEXT_TAKEOVER) {
                set_flag(&mut listed.client_no_context_takeover, parameter.value)?;
            } else if is(SERVER_MAX_WINDOW_BITS) {
                set_bits(&mut listed.server_max_window_bits, parameter.value)?;
            } else if is(CLIENT_MAX_WINDOW_BITS) {
                set_bits(&mut listed.client_max_window_bits, parameter.value)?;
            } else {
                return None;
            }
        }
        Some(listed)
    }
}

fn set_flag(flag: &mut bool, value: Option<Value<'_>>) -> Option<()> {
    let is_new = !std::mem::replace(flag, true);
    (is_new && value.is_none()).then_some(())
}

fn set_bits(bits: &mut Bits, value: Option<Value<'_>>) -> Option<()> {
    let new = match value {
        None => Bits::Flag,
        Some(value) => Bits::Number(value.number().filter(|number| (MIN_BITS..=MAX_BITS).contains(number))?),
    };
    (std::mem::replace(bits, new) == Bits::Missing).then_some(())
}

/// The least that a window can be bound to.
pub(super) const MIN_BITS: u8 = 8;
/// The least that zlib-rs compresses with, without a zlib header.
pub(super) const MIN_OWN_BITS: u8 = 9;
pub(super) const MAX_BITS: u8 = 15;

const NAME: &str = "permessage-deflate";
const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Deflate {
        Deflate { server_no_context_takeover: false, client_no_context_takeover: false, ..Deflate::default() }
    }

    /// The answer to offers, as it is written.
    fn answer(deflate: Deflate, offers: &str) -> Option<String> {
        deflate.accept([offers.as_bytes()]).map(|accepted| accepted.to_string())
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // Section 7.1.3: the simplest, one with fallbacks, and a response that binds the client to 10 bits.
        assert_eq!(answer(plain(), "permessage-deflate").as_deref(), Some("permessage-deflate"));
        let offers = "permessage-deflate; client_max_window_bits; server_max_window_bits=10, permessage-deflate; client_max_window_bits";
        assert_eq!(answer(plain(), offers).as_deref(), Some("permessage-deflate; server_max_window_bits=10"));
        let bound = Deflate { client_max_window_bits: 10, ..plain() };
        let offer = "permessage-deflate; client_max_window_bits";
        assert_eq!(answer(bound, offer).as_deref(), Some("permessage-deflate; client_max_window_bits=10"));
    }

    #[test]
    fn a_server_answers_each_parameter_as_it_must() {
        let cases = [
            ("server_no_context_takeover", "; server_no_context_takeover"),
            ("client_no_context_takeover", "; client_no_context_takeover"),
            ("server_max_window_bits=15", "; server_max_window_bits=15"),
            ("server_max_window_bits=\"9\"", "; server_max_window_bits=9"),
            ("client_max_window_bits", ""),
            ("client_max_window_bits=15", "; client_max_window_bits=15"),
            ("client_max_window_bits=8", "; client_max_window_bits=8"),
        ];
        for (offered, answered) in cases {
            let expected = format!("permessage-deflate{answered}");
            assert_eq!(answer(plain(), &format!("permessage-deflate; {offered}")), Some(expected));
        }
        let bound = Deflate { server_max_window_bits: 11, client_max_window_bits: 10, ..Deflate::default() };
        let cases = [
            // Nobody asked, and only clients that mention it can be bound.
            ("", ""),
            (
                "; server_max_window_bits=12; client_max_window_bits",
                "; server_max_window_bits=11; client_max_window_bits=10",
            ),
            (
                "; server_max_window_bits=10; client_max_window_bits=9",
                "; server_max_window_bits=10; client_max_window_bits=9",
            ),
        ];
        for (offered, answered) in cases {
            let expected = format!(
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover{answered}"
            );
            assert_eq!(answer(bound, &format!("permessage-deflate{offered}")), Some(expected));
        }
    }

    #[test]
    fn offers_are_tried_in_order_and_bad_ones_are_passed_over() {
        let bad = [
            "permessage-deflate; unknown",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; client_no_context_takeover=\"\"",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9",
            "permessage-deflate; client_max_window_bits=7",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits; client_max_window_bits=10",
            // What the library underneath cannot do.
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate;",
            "Permessage-Deflate",
            "permessage-bzip2",
            "mux; max-channels=4",
            "x-webkit-deflate-frame",
        ];
        for bad in bad {
            assert_eq!(answer(plain(), bad), None, "{bad}");
            let offers = format!("{bad}, permessage-deflate; server_max_window_bits=9, permessage-deflate");
            let second = answer(plain(), &offers);
            assert_eq!(second.as_deref(), Some("permessage-deflate; server_max_window_bits=9"), "{bad}");
        }
        assert_eq!(answer(plain(), ""), None);
        assert_eq!(plain().accept([]), None);
        assert_eq!(plain().accept([&b"foo"[..], b"permessage-deflate"]), Some(Parameters::default()));
    }

    #[test]
    fn a_client_offers_what_it_wants_and_can_be_bound() {
        assert_eq!(plain().offer().to_string(), "permessage-deflate; client_max_window_bits");
        let all = Deflate { server_max_window_bits: 10, client_max_window_bits: 9, ..Deflate::default() };
        let expected = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10; \
                        client_max_window_bits=9";
        assert_eq!(all.offer().to_string(), expected);
    }

    #[test]
    fn a_client_takes_only_what_it_offered() {
        let check = |deflate: Deflate, values: &str| deflate.accepted([values.as_bytes()]);
        assert_eq!(plain().accepted([]), Ok(None));
        assert_eq!(check(plain(), " , "), Ok(None));
        let all = "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=8; \
                   client_max_window_bits=8";
        let parameters = check(plain(), all).unwrap().unwrap();
        assert_eq!(parameters.to_string(), all);
        assert!(!parameters.takes_over(Side::Client) && !parameters.takes_over(Side::Server));
        assert_eq!((parameters.window_bits(Side::Client), parameters.window_bits(Side::Server)), (8, 8));

        use ResponseError::*;
        for (response, error) in [
            ("permessage-deflate;", Malformed),
            ("permessage-deflate, permessage-deflate", NotOffered),
            ("permessage-deflate, mux", NotOffered),
            ("mux", NotOffered),
            ("permessage-deflate; unknown", Parameter),
            ("permessage-deflate; client_max_window_bits", Parameter),
            ("permessage-deflate; server_max_window_bits", Parameter),
            ("permessage-deflate; server_max_window_bits=7", Parameter),
            ("permessage-deflate; server_no_context_takeover=1", Parameter),
        ] {
            assert_eq!(check(plain(), response), Err(error), "{response}");
        }
        let asks = Deflate { server_no_context_takeover: true, ..plain() };
        assert_eq!(check(asks, "permessage-deflate"), Err(NotGranted));
        let asks = Deflate { server_max_window_bits: 10, ..plain() };
        assert_eq!(check(asks, "permessage-deflate"), Err(NotGranted));
        assert_eq!(check(asks, "permessage-deflate; server_max_window_bits=11"), Err(NotGranted));
        assert!(check(asks, "permessage-deflate; server_max_window_bits=9").is_ok());
        let says = Deflate { client_max_window_bits: 10, ..plain() };
        assert_eq!(check(says, "permessage-deflate; client_max_window_bits=11"), Err(Parameter));
        assert!(check(says, "permessage-deflate; client_max_window_bits=10").is_ok());
        assert!(check(says, "permessage-deflate").is_ok());
    }

    #[test]
    fn our_own_ends_agree_on_everything() {
        let takeovers = [false, true];
        for server_no in takeovers {
            for client_no in takeovers {
                for server_bits in 8..=15 {
                    for client_bits in 8..=15 {
                        let client = Deflate {
                            server_no_context_takeover: server_no,
                            client_no_context_takeover: client_no,
                            server_max_window_bits: server_bits,
                            client_max_window_bits: client_bits,
                            ..Deflate::default()
                        };
                        for server in [plain(), Deflate::default(), client] {
                            let accepted = answer(server, &client.offer().to_string());
                            assert_eq!(accepted.is_none(), server_bits == 8);
                            let Some(accepted) = accepted else { continue };
                            let agreed = client.accepted([accepted.as_bytes()]).unwrap().unwrap();
                            assert_eq!(agreed.to_string(), accepted);
                            assert!(agreed.window_bits(Side::Server) <= server_bits);
                        }
                    }
                }
            }
        }
    }
}
