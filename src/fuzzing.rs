//! The decoders that are not public, for the fuzz targets. Not part of the library: it exists only when built for fuzzing.

use crate::client::{Host, Url};
use crate::http::AnswerError;
use crate::http1::answer::{self, Asking};
use crate::http1::body::{Decoder, Step};
use crate::http1::head::{self, Framing};
use crate::limits::Limits;
use std::mem::MaybeUninit;

/// Looks for the end of a head that comes in pieces which end at `ends`, in ascending order; a refusal is its status code.
pub fn find_head(input: &[u8], ends: &[usize], limit: usize) -> Result<Option<usize>, u16> {
    let mut seen = 0;
    for &end in ends {
        match head::find_end(&input[..end], &mut seen, limit) {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(error) => return Err(error.status().code()),
        }
    }
    Ok(None)
}

/// Reads a head that is complete: method, target, whether content follows, and every field.
pub fn parse_head(input: &[u8]) -> Result<(String, String, bool, Vec<(String, Vec<u8>)>), u16> {
    let mut room = [const { MaybeUninit::uninit() }; 100];
    let head = head::parse(input, &mut room).map_err(|error| error.status().code())?;
    let fields = head.fields.iter().map(|field| (field.name.to_owned(), field.value.to_owned())).collect();
    Ok((head.method.to_owned(), head.target.text().to_owned(), head.framing != Framing::None, fields))
}

/// [`find_head`] for a response.
pub fn find_answer(input: &[u8], ends: &[usize], limit: usize) -> Result<Option<usize>, AnswerError> {
    let mut seen = 0;
    for &end in ends {
        match answer::find_end(&input[..end], &mut seen, limit) {
            Ok(None) => {}
            found => return found,
        }
    }
    Ok(None)
}

/// Reads the head of a response that is complete: status, reason phrase, and every field.
pub fn parse_answer(input: &[u8]) -> Result<(u16, Vec<u8>, Vec<(String, Vec<u8>)>), AnswerError> {
    let mut room = [const { MaybeUninit::uninit() }; 100];
    let answer = answer::parse(input, &mut room, Asking::Content)?;
    let fields = answer.fields.iter().map(|field| (field.name.to_owned(), field.value.to_owned())).collect();
    Ok((answer.status.code(), answer.reason.to_vec(), fields))
}

/// Where a URL leads to, and where a reference leads to from there: `Host` and target of each, and a URL that means the same,
/// unless it leads to a socket.
pub fn resolve(base: &str, reference: &str) -> Vec<(String, String, Option<String>)> {
    let Ok(base) = Url::parse(base) else { return Vec::new() };
    let joined = base.join(reference).ok();
    let parts = |url: Url| {
        let again = format!("{}://{}{}", url.scheme.name(), url.authority, url.target);
        let on_network = !matches!(url.host, Host::Unix(_));
        (url.authority, url.target, on_network.then_some(again))
    };
    [base].into_iter().chain(joined).map(parts).collect()
}

/// Decodes chunked content that comes in pieces which end at `ends`: what the content is, how much of the input was used
/// when its end came, and the status code of a refusal.
pub fn chunked(input: &[u8], ends: &[usize], limits: &Limits) -> (Vec<u8>, Result<Option<usize>, u16>) {
    let mut content = Vec::new();
    let mut decoder = Decoder::new(Framing::Chunked, limits).expect("chunks announce nothing");
    let mut used = 0;
    for &end in ends {
        loop {
            match decoder.next(&input[used..end]) {
                Ok((Step::More, took)) => {
                    used += took;
                    break;
                }
                Ok((Step::Piece(piece), took)) => {
                    used += took;
                    content.extend_from_slice(piece);
                }
                Ok((Step::End(_), took)) => return (content, Ok(Some(used + took))),
                Err(error) => return (content, Err(error.status().code())),
            }
        }
    }
    (content, Ok(None))
}
