//! The decoders that are not public, for the fuzz targets. Not part of the library: it exists only when built for fuzzing.

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
