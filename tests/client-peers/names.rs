//! A resolver that knows a few names, and leaves one kind of question without an answer.

use lodger::resolve::{Found, Hands, Lookup, LookupId, ResolveError, Resolver};
use std::collections::HashMap;
use std::error::Error;
use std::net::IpAddr;

/// The names that there are; the answer to `None` never comes.
pub(crate) struct Table(HashMap<String, Option<Vec<IpAddr>>>);

impl Table {
    /// From `NAME=ADDRESS,ADDRESS...` and `NAME=never`.
    pub(crate) fn parse(names: &[String]) -> Result<Self, Box<dyn Error>> {
        let mut table = HashMap::new();
        for entry in names {
            let (name, addresses) = entry.split_once('=').ok_or("NAME=ADDRESS,ADDRESS...")?;
            let addresses = match addresses {
                "never" => None,
                addresses => Some(addresses.split(',').map(str::parse).collect::<Result<_, _>>()?),
            };
            table.insert(name.to_owned(), addresses);
        }
        Ok(Self(table))
    }
}

impl Resolver for Table {
    fn look_up(&mut self, id: LookupId, lookup: &Lookup, hands: &mut Hands<'_>) {
        let answer = match lookup {
            Lookup::Addresses(name) => match self.0.get(name) {
                Some(Some(addresses)) => Ok(Found::Addresses(addresses.clone())),
                Some(None) => return,
                None => Err(ResolveError::NotFound),
            },
            _ => Err(ResolveError::Unsupported),
        };
        hands.answer(id, answer);
    }

    fn cancel(&mut self, _: LookupId, _: &mut Hands<'_>) {}
}
