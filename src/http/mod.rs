//! HTTP as RFC 9110 has it, the same in any version: requests, responses, fields, status codes.
//!
//! An application reads a [`Request`], which borrows the bytes that the peer sent, and builds a [`Response`], which owns
//! what it says:
//!
//! ```
//! use lodger::http::{Request, Response, StatusCode};
//!
//! fn answer(request: &Request<'_>) -> Response {
//!     match (request.method(), request.path()) {
//!         ("GET" | "HEAD", "/") => Response::html("<p>Hello</p>").field("Cache-Control", "no-store"),
//!         (_, "/") => Response::new(StatusCode::METHOD_NOT_ALLOWED).field("Allow", "GET, HEAD"),
//!         _ => Response::text("There is no such page.\n").status(StatusCode::NOT_FOUND),
//!     }
//! }
//! ```
//!
//! What is particular to the wire (heads, chunks, when a connection stays open) is not decided here, and a response
//! cannot say anything about it: see [`Response::field`].

mod answered;
mod chars;
mod client;
mod date;
mod fields;
mod handler;
mod outgoing;
mod request;
mod response;
mod status;
mod target;

pub use answered::ResponseHead;
pub use client::ClientHandler;
pub use fields::{FieldError, Fields};
pub use handler::Handler;
pub use outgoing::{ClientRequest, RequestError};
pub use request::{Request, Version};
pub use response::{Response, ResponseError};
pub use status::StatusCode;

pub use crate::http1::answer::AnswerError;

pub(crate) use chars::{is_field_value, is_target, is_token};
pub(crate) use date::DateCache;
pub(crate) use fields::{elements, is_forbidden_trailer};
pub(crate) use outgoing::{Content, is_managed_in_requests};
pub(crate) use response::{Body, is_managed};
pub(crate) use target::{Target, is_authority, same_authority};
