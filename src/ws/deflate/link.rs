//! permessage-deflate on lodger's own connections: what each has, and what all share.

use super::{
    Budget, Compressors, Decompressors, Deflate, Deflater, Inflater, Metrics, Parameters, RSV, ResponseError,
    Setting, Volume,
};
use crate::ws::extension::{Reading, Source};
use crate::ws::receive::Spare;
use crate::ws::{Event, Header, Opcode, ReceiveError, Receiver, Settings, Shared, Side};
use std::sync::{Mutex, PoisonError};

/// What a connection has on which permessage-deflate was agreed on.
pub(crate) struct Deflated {
    pub(crate) parameters: Parameters,
    pub(crate) deflater: Deflater,
    pub(crate) inflater: Inflater,
    /// What was counted for it.
    reserved: usize,
}

/// What a client has offered, and what is counted for it until it is answered.
#[derive(Clone, Copy)]
pub(crate) struct Offered {
    pub(crate) options: Deflate,
    reserved: usize,
}

/// What the connections of a context share.
#[derive(Debug)]
pub(crate) struct Pools {
    pub(crate) compressors: Compressors,
    pub(crate) decompressors: Decompressors,
    pub(crate) budget: Budget,
    /// What connections that are gone have sent and received.
    pub(crate) past: Volume,
}

/// The most that compressors and decompressors with context takeover may take, unless something else is said.
pub(crate) const BUDGET: usize = 64 * 1024 * 1024;

impl Default for Pools {
    fn default() -> Self {
        Self {
            compressors: Compressors::default(),
            decompressors: Decompressors::default(),
            budget: Budget::new(BUDGET),
            past: Volume::default(),
        }
    }
}

impl Pools {
    /// What becomes of a client's offers, all values of Sec-WebSocket-Extensions in its request. Where there is no memory for
    /// context takeover, there is none.
    pub(crate) fn accept<'a>(
        &mut self,
        options: &Deflate,
        values: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Option<Deflated> {
        let (parameters, reserved) = self.budget.accept(options, values)?;
        Some(Deflated::new(options, parameters, Side::Server, reserved))
    }

    /// What a client is to offer: these options, or without context takeover where there is no memory for it. Written out,
    /// [`Deflate::offer`] of it is the value of Sec-WebSocket-Extensions.
    pub(crate) fn offered(&mut self, options: &Deflate) -> Offered {
        let most = options.memory(&Parameters::default(), Side::Client);
        let fits = most <= self.budget.limit().saturating_sub(self.budget.used());
        let (options, reserved) =
            if fits { (*options, most) } else { (options.without_context_takeover(), 0) };
        self.budget.add(reserved);
        Offered { options, reserved }
    }

    /// Nothing comes of an offer any more, or something else is counted for it.
    pub(crate) fn take_back_offer(&mut self, offered: &Offered) {
        self.budget.release(offered.reserved);
    }

    /// What the server has accepted of that: all values of Sec-WebSocket-Extensions in its response. `None` if it has declined.
    /// With an error, the connection has to be failed.
    pub(crate) fn accepted<'a>(
        &mut self,
        offered: &Offered,
        values: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Option<Deflated>, ResponseError> {
        let options = &offered.options;
        let Some(parameters) = options.accepted(values)? else { return Ok(None) };
        let reserved = options.memory(&parameters, Side::Client);
        self.budget.add(reserved);
        Ok(Some(Deflated::new(options, parameters, Side::Client, reserved)))
    }

    /// What is known without looking at the connections.
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics {
            connections: 0,
            memory: self.compressors.memory() + self.decompressors.memory(),
            reserved: self.budget.used(),
            limit: self.budget.limit(),
            volume: self.past,
        }
    }

    /// A connection is gone.
    pub(crate) fn take_back(&mut self, mut deflated: Deflated) {
        deflated.deflater.discard(&mut self.compressors);
        deflated.inflater.release(&mut self.decompressors);
        self.budget.release(deflated.reserved);
        self.past += deflated.volume();
    }

    pub(crate) fn give_scratch(&mut self, scratch: Vec<u8>) {
        self.compressors.give_scratch(scratch);
    }
}

impl Deflated {
    fn new(options: &Deflate, parameters: Parameters, side: Side, reserved: usize) -> Self {
        let deflater = Deflater::new(options, &parameters, side);
        let inflater = Inflater::new(&parameters, side);
        Self { parameters, deflater, inflater, reserved }
    }

    /// What the server answers, as the value of Sec-WebSocket-Extensions.
    pub(crate) fn field(&self) -> String {
        self.parameters.to_string()
    }

    /// What was sent and received so far.
    pub(crate) fn volume(&self) -> Volume {
        let ((sent, sent_compressed), (received_compressed, received)) =
            (self.deflater.counted(), self.inflater.counted());
        Volume { sent, sent_compressed, received, received_compressed }
    }

    /// What it has for the message under way only, in bytes.
    pub(crate) fn lent(&self) -> usize {
        if self.inflater.takes_over() { 0 } else { self.inflater.memory() }
    }

    /// What is held, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.deflater.memory() + self.inflater.memory()
    }

    /// Compresses the payload of a frame and changes its header; `None` if the frame goes as it is.
    pub(crate) fn compress(
        &mut self,
        header: &mut Header,
        payload: &[u8],
        pools: &mut Pools,
    ) -> Option<Vec<u8>> {
        let mut out = pools.compressors.take_scratch();
        if !self.deflater.compress_piece(payload, header.fin, &mut out, &mut pools.compressors) {
            pools.compressors.give_scratch(out);
            return None;
        }
        header.rsv = if header.opcode == Opcode::Continuation { 0 } else { RSV };
        header.length = out.len() as u64;
        Some(out)
    }

    /// The form in which a message for many goes to this one, where that is another than what it is for others.
    pub(crate) fn form_of(&mut self, frame: &Shared, pools: &mut Pools) -> Option<Shared> {
        let payload = frame.payload();
        let setting = self.deflater.setting_for(payload.len()).filter(|_| !frame.is_uncompressed())?;
        let form = frame.forms().get(setting, || {
            let mut out = Vec::new();
            let shrinks = pools.compressors.compress(setting, payload, &mut out);
            shrinks.then(|| Shared::encoded(frame.kind(), RSV, &out))
        })?;
        self.deflater.sent_otherwise(payload.len(), form.payload().len());
        Some(form)
    }

    /// Takes out what reads; `budget` is how many messages it may give.
    pub(crate) fn take_reading(&mut self, receiver: Receiver, budget: u32, pools: &mut Pools) -> Reading {
        let inflater = std::mem::replace(&mut self.inflater, Inflater::new(&self.parameters, Side::Server));
        let decompressors = std::mem::take(&mut pools.decompressors);
        Reading::Extended(Extended {
            receiver,
            inflater,
            decompressors,
            allowance: budget as usize * MESSAGE,
        })
    }

    /// Puts it back.
    pub(crate) fn put_reading(&mut self, extended: Extended, pools: &mut Pools) -> Receiver {
        self.inflater = extended.inflater;
        pools.decompressors = extended.decompressors;
        extended.receiver
    }
}

/// So many inflated bytes count as much as a message does, so that what little input becomes has a bound for each turn.
const MESSAGE: usize = 512;

/// A receiver with what it inflates by.
pub(crate) struct Extended {
    receiver: Receiver,
    inflater: Inflater,
    decompressors: Decompressors,
    /// How many bytes it may still inflate in this turn.
    allowance: usize,
}

impl Extended {
    pub(crate) fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    pub(crate) fn receiver_mut(&mut self) -> &mut Receiver {
        &mut self.receiver
    }

    /// What is left of a budget in messages, of which `left` are left by number.
    pub(crate) fn budget_left(&self, left: u32) -> u32 {
        left.min((self.allowance / MESSAGE) as u32)
    }
}

impl Source for Extended {
    #[inline]
    fn next<'a>(
        &'a mut self,
        input: &'a mut [u8],
        settings: &Settings,
        spare: &mut Spare,
        frames: &mut u32,
    ) -> Result<(usize, Option<Event<'a>>), ReceiveError> {
        let Self { receiver, inflater, decompressors, allowance } = self;
        receiver.next_inflated_with(input, settings, inflater, decompressors, spare, allowance, frames)
    }

    #[inline]
    fn is_idle(&self) -> bool {
        self.receiver.is_idle()
    }

    fn has_more(&self) -> bool {
        self.receiver.has_more()
    }

    #[inline]
    fn is_exhausted(&self) -> bool {
        self.allowance == 0
    }
}

/// The forms of a message for many, by what they were compressed with; none where it does not shrink.
#[derive(Default)]
pub(crate) struct Forms(Mutex<Vec<(Setting, Option<Shared>)>>);

/// So many are kept. There are as many as there are different settings among those that it goes to.
const FORMS: usize = 16;

impl Forms {
    /// The form for a setting; made outside of the lock, so that no thread waits for another one's compressing.
    fn get(&self, setting: Setting, make: impl FnOnce() -> Option<Shared>) -> Option<Shared> {
        let forms = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, form)) = forms().iter().find(|(known, _)| *known == setting) {
            return form.clone();
        }
        let form = make();
        let mut forms = forms();
        if forms.len() < FORMS {
            forms.push((setting, form.clone()));
        }
        form
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::Message;
    use std::cell::Cell;

    #[test]
    fn a_form_is_made_once_for_each_setting_and_so_is_the_decision_against_one() {
        let made = Cell::new(0);
        let forms = Forms::default();
        let get = |level: u8, shrinks: bool| {
            forms.get(Setting::new(level, 15, 8), || {
                made.set(made.get() + 1);
                shrinks.then(|| Shared::new(Message::Text("form")))
            })
        };
        for _ in 0..100 {
            assert!(get(1, true).is_some() && get(2, true).is_some() && get(3, false).is_none());
        }
        assert_eq!(made.get(), 3);
        // However many settings there are, no more are kept than so many.
        for _ in 0..3 {
            for window_bits in 9..=15 {
                for level in 1..=9 {
                    forms.get(Setting::new(level, window_bits, 8), || None);
                }
            }
        }
        assert_eq!(forms.0.lock().unwrap().len(), FORMS);
    }

    #[test]
    fn a_client_offers_what_there_is_memory_for_and_checks_what_was_accepted() {
        let mut options = Deflate::default();
        (options.server_no_context_takeover, options.client_no_context_takeover) = (false, false);
        let each = options.memory(&Parameters::default(), Side::Client);
        let mut pools = Pools { budget: Budget::new(each), ..Pools::default() };
        let offered = pools.offered(&options);
        assert_eq!(offered.options.offer().to_string(), "permessage-deflate; client_max_window_bits");
        // What is offered may be taken at its word.
        assert_eq!(pools.budget.used(), each);
        let frugal = pools.offered(&options);
        pools.take_back_offer(&offered);
        let deflated = pools.accepted(&offered, [&b"permessage-deflate"[..]]).unwrap().unwrap();
        assert_eq!((pools.budget.used(), deflated.memory()), (each, 0));
        assert!(frugal.options.server_no_context_takeover && frugal.options.client_no_context_takeover);
        assert!(pools.accepted(&offered, []).unwrap().is_none());
        let not_offered = pools.accepted(&offered, [&b"mux"[..]]);
        assert_eq!(not_offered.err(), Some(ResponseError::NotOffered));
        let not_granted = pools.accepted(&frugal, [&b"permessage-deflate"[..]]);
        assert_eq!(not_granted.err(), Some(ResponseError::NotGranted));
        pools.take_back(deflated);
        assert_eq!(pools.budget.used(), 0);
    }
}
