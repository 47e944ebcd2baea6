//! Status codes (RFC 9110, section 15).

use std::fmt;

/// The status code of a response, 100 to 599 (RFC 9110, section 15).
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StatusCode(u16);

impl StatusCode {
    /// A code by its number, or `None` when it has not the shape of one: 100 to 599.
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            100..=599 => Some(Self(code)),
            _ => None,
        }
    }

    /// The number.
    pub const fn code(self) -> u16 {
        self.0
    }

    /// Whether more responses to the same request follow (1xx; RFC 9110, section 15.2).
    pub const fn is_informational(self) -> bool {
        self.0 < 200
    }

    /// Whether the request was received, understood and accepted (2xx; RFC 9110, section 15.3).
    pub const fn is_success(self) -> bool {
        self.0 / 100 == 2
    }

    /// Whether the client or the server has failed (4xx, 5xx; RFC 9110, sections 15.5 and 15.6).
    pub const fn is_error(self) -> bool {
        self.0 >= 400
    }
}

impl fmt::Debug for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The code and, where it is known, the reason phrase: `404 Not Found`.
impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            "" => write!(f, "{}", self.0),
            reason => write!(f, "{} {reason}", self.0),
        }
    }
}

macro_rules! codes {
    ($($code:literal $name:ident $reason:literal $reference:literal,)*) => {
        impl StatusCode {
            $(
                #[doc = concat!($code, " ", $reason, " (", $reference, ").")]
                pub const $name: Self = Self($code);
            )*

            /// The reason phrase that the registry has for the code, or an empty one.
            pub const fn reason(self) -> &'static str {
                match self.0 {
                    $($code => $reason,)*
                    _ => "",
                }
            }
        }
    };
}

codes! {
    100 CONTINUE "Continue" "RFC 9110, section 15.2.1",
    101 SWITCHING_PROTOCOLS "Switching Protocols" "RFC 9110, section 15.2.2",
    103 EARLY_HINTS "Early Hints" "RFC 8297",
    200 OK "OK" "RFC 9110, section 15.3.1",
    201 CREATED "Created" "RFC 9110, section 15.3.2",
    202 ACCEPTED "Accepted" "RFC 9110, section 15.3.3",
    203 NON_AUTHORITATIVE_INFORMATION "Non-Authoritative Information" "RFC 9110, section 15.3.4",
    204 NO_CONTENT "No Content" "RFC 9110, section 15.3.5",
    205 RESET_CONTENT "Reset Content" "RFC 9110, section 15.3.6",
    206 PARTIAL_CONTENT "Partial Content" "RFC 9110, section 15.3.7",
    300 MULTIPLE_CHOICES "Multiple Choices" "RFC 9110, section 15.4.1",
    301 MOVED_PERMANENTLY "Moved Permanently" "RFC 9110, section 15.4.2",
    302 FOUND "Found" "RFC 9110, section 15.4.3",
    303 SEE_OTHER "See Other" "RFC 9110, section 15.4.4",
    304 NOT_MODIFIED "Not Modified" "RFC 9110, section 15.4.5",
    307 TEMPORARY_REDIRECT "Temporary Redirect" "RFC 9110, section 15.4.8",
    308 PERMANENT_REDIRECT "Permanent Redirect" "RFC 9110, section 15.4.9",
    400 BAD_REQUEST "Bad Request" "RFC 9110, section 15.5.1",
    401 UNAUTHORIZED "Unauthorized" "RFC 9110, section 15.5.2",
    402 PAYMENT_REQUIRED "Payment Required" "RFC 9110, section 15.5.3",
    403 FORBIDDEN "Forbidden" "RFC 9110, section 15.5.4",
    404 NOT_FOUND "Not Found" "RFC 9110, section 15.5.5",
    405 METHOD_NOT_ALLOWED "Method Not Allowed" "RFC 9110, section 15.5.6",
    406 NOT_ACCEPTABLE "Not Acceptable" "RFC 9110, section 15.5.7",
    407 PROXY_AUTHENTICATION_REQUIRED "Proxy Authentication Required" "RFC 9110, section 15.5.8",
    408 REQUEST_TIMEOUT "Request Timeout" "RFC 9110, section 15.5.9",
    409 CONFLICT "Conflict" "RFC 9110, section 15.5.10",
    410 GONE "Gone" "RFC 9110, section 15.5.11",
    411 LENGTH_REQUIRED "Length Required" "RFC 9110, section 15.5.12",
    412 PRECONDITION_FAILED "Precondition Failed" "RFC 9110, section 15.5.13",
    413 CONTENT_TOO_LARGE "Content Too Large" "RFC 9110, section 15.5.14",
    414 URI_TOO_LONG "URI Too Long" "RFC 9110, section 15.5.15",
    415 UNSUPPORTED_MEDIA_TYPE "Unsupported Media Type" "RFC 9110, section 15.5.16",
    416 RANGE_NOT_SATISFIABLE "Range Not Satisfiable" "RFC 9110, section 15.5.17",
    417 EXPECTATION_FAILED "Expectation Failed" "RFC 9110, section 15.5.18",
    421 MISDIRECTED_REQUEST "Misdirected Request" "RFC 9110, section 15.5.20",
    422 UNPROCESSABLE_CONTENT "Unprocessable Content" "RFC 9110, section 15.5.21",
    425 TOO_EARLY "Too Early" "RFC 8470, section 5.2",
    426 UPGRADE_REQUIRED "Upgrade Required" "RFC 9110, section 15.5.22",
    428 PRECONDITION_REQUIRED "Precondition Required" "RFC 6585, section 3",
    429 TOO_MANY_REQUESTS "Too Many Requests" "RFC 6585, section 4",
    431 REQUEST_HEADER_FIELDS_TOO_LARGE "Request Header Fields Too Large" "RFC 6585, section 5",
    451 UNAVAILABLE_FOR_LEGAL_REASONS "Unavailable For Legal Reasons" "RFC 7725, section 3",
    500 INTERNAL_SERVER_ERROR "Internal Server Error" "RFC 9110, section 15.6.1",
    501 NOT_IMPLEMENTED "Not Implemented" "RFC 9110, section 15.6.2",
    502 BAD_GATEWAY "Bad Gateway" "RFC 9110, section 15.6.3",
    503 SERVICE_UNAVAILABLE "Service Unavailable" "RFC 9110, section 15.6.4",
    504 GATEWAY_TIMEOUT "Gateway Timeout" "RFC 9110, section 15.6.5",
    505 HTTP_VERSION_NOT_SUPPORTED "HTTP Version Not Supported" "RFC 9110, section 15.6.6",
    511 NETWORK_AUTHENTICATION_REQUIRED "Network Authentication Required" "RFC 6585, section 6",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_outside_100_to_599_do_not_exist() {
        for (code, exists) in
            [(0, false), (99, false), (100, true), (599, true), (600, false), (u16::MAX, false)]
        {
            assert_eq!(StatusCode::new(code).is_some(), exists, "{code}");
        }
    }

    #[test]
    fn a_code_is_shown_with_its_reason_when_there_is_one() {
        assert_eq!(StatusCode::NOT_FOUND.to_string(), "404 Not Found");
        assert_eq!(StatusCode::new(299).map(|status| status.to_string()).as_deref(), Some("299"));
    }
}
