//! What lies between messages and their frames: nothing, or permessage-deflate. The rest of the crate is the same for both.

#![cfg_attr(
    not(feature = "deflate"),
    expect(dead_code, reason = "without permessage-deflate there is no extension")
)]

use super::{Event, ReceiveError, Receiver, Settings, Spare};

#[cfg(feature = "deflate")]
pub(crate) use super::deflate::{Deflate, Deflated, Extended, Forms, Offered, Pools};
#[cfg(not(feature = "deflate"))]
pub(crate) use none::{Deflate, Deflated, Extended, Forms, Offered, Pools};

/// Where a link's events come from, out of its place while handlers run: an event borrows from it.
pub(crate) enum Reading {
    Plain(Receiver),
    Extended(Extended),
}

impl Reading {
    /// What takes the frames.
    pub(crate) fn receiver(&self) -> &Receiver {
        match self {
            Self::Plain(receiver) => receiver,
            Self::Extended(extended) => extended.receiver(),
        }
    }

    /// No event borrows from it any more: the memory of a message that was handed over is the next one's, whoever's that is.
    pub(crate) fn handed_over(&mut self, spare: &mut Spare) {
        match self {
            Self::Plain(receiver) => receiver.handed_over(spare),
            Self::Extended(extended) => extended.receiver_mut().handed_over(spare),
        }
    }
}

/// What a frame loop needs of it.
pub(crate) trait Source {
    /// As [`Receiver::next`]. Frames that give no event are taken from `frames`; when that is 0, no event means nothing.
    fn next<'a>(
        &'a mut self,
        input: &'a mut [u8],
        settings: &Settings,
        spare: &mut Spare,
        frames: &mut u32,
    ) -> Result<(usize, Option<Event<'a>>), ReceiveError>;

    /// Whether nothing is held, and the next byte begins a frame.
    fn is_idle(&self) -> bool;

    /// Whether more may come without more input.
    fn has_more(&self) -> bool;

    /// Whether it has given as much as it may in this turn.
    fn is_exhausted(&self) -> bool;
}

impl Source for Receiver {
    #[inline(always)]
    fn next<'a>(
        &'a mut self,
        input: &'a mut [u8],
        settings: &Settings,
        spare: &mut Spare,
        frames: &mut u32,
    ) -> Result<(usize, Option<Event<'a>>), ReceiveError> {
        self.next_with(input, settings, spare, frames)
    }

    #[inline(always)]
    fn is_idle(&self) -> bool {
        Self::is_idle(self)
    }

    #[inline(always)]
    fn has_more(&self) -> bool {
        false
    }

    #[inline(always)]
    fn is_exhausted(&self) -> bool {
        false
    }
}

/// Without permessage-deflate there is no extension.
#[cfg(not(feature = "deflate"))]
mod none {
    use super::super::{Event, Header, ReceiveError, Receiver, Settings, Shared, Spare};
    use super::{Reading, Source};

    #[derive(Clone, Copy)]
    pub(crate) enum Deflate {}

    #[derive(Clone, Copy)]
    pub(crate) struct Offered {
        pub(crate) options: Deflate,
    }

    pub(crate) enum Deflated {}

    pub(crate) enum Extended {}

    #[derive(Default)]
    pub(crate) struct Forms {}

    #[derive(Default)]
    pub(crate) struct Pools {}

    impl Pools {
        pub(crate) fn accept<'a>(
            &mut self,
            options: &Deflate,
            _: impl Iterator<Item = &'a [u8]> + Clone,
        ) -> Option<Deflated> {
            match *options {}
        }

        pub(crate) fn offered(&mut self, options: &Deflate) -> Offered {
            match *options {}
        }

        pub(crate) fn take_back_offer(&mut self, offered: &Offered) {
            match offered.options {}
        }

        pub(crate) fn take_back(&mut self, deflated: Deflated) {
            match deflated {}
        }

        pub(crate) fn give_scratch(&mut self, _: Vec<u8>) {}
    }

    impl Deflate {
        pub(crate) fn offer(&self) -> String {
            match *self {}
        }
    }

    impl Deflated {
        pub(crate) fn field(&self) -> String {
            match *self {}
        }

        pub(crate) fn lent(&self) -> usize {
            match *self {}
        }

        pub(crate) fn compress(&mut self, _: &mut Header, _: &[u8], _: &mut Pools) -> Option<Vec<u8>> {
            match *self {}
        }

        pub(crate) fn form_of(&mut self, _: &Shared, _: &mut Pools) -> Option<Shared> {
            match *self {}
        }

        pub(crate) fn take_reading(&mut self, _: Receiver, _: u32, _: &mut Pools) -> Reading {
            match *self {}
        }

        pub(crate) fn put_reading(&mut self, extended: Extended, _: &mut Pools) -> Receiver {
            match extended {}
        }
    }

    impl Extended {
        pub(crate) fn budget_left(&self, _: u32) -> u32 {
            match *self {}
        }

        pub(crate) fn receiver(&self) -> &super::Receiver {
            match *self {}
        }

        pub(crate) fn receiver_mut(&mut self) -> &mut super::Receiver {
            match *self {}
        }
    }

    impl Source for Extended {
        fn next<'a>(
            &'a mut self,
            _: &'a mut [u8],
            _: &Settings,
            _: &mut Spare,
            _: &mut u32,
        ) -> Result<(usize, Option<Event<'a>>), ReceiveError> {
            match *self {}
        }

        fn is_idle(&self) -> bool {
            match *self {}
        }

        fn has_more(&self) -> bool {
            match *self {}
        }

        fn is_exhausted(&self) -> bool {
            match *self {}
        }
    }
}
