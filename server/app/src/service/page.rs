//! Pages of lists: the latest first, gone on with by a token that names the last item shown.
//!
//! Invariant: a token holds no secret and no position in memory; any replica goes on with it. It is
//! good for the filters that it was made with, and for nothing else.

use std::cmp::Reverse;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prost::Message;

use super::convert::fields::{Violations, shown};

#[cfg(test)]
mod tests;

/// Where an item stands in a list: by time, the latest first, then by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The item's time, milliseconds.
    pub(super) at: Reverse<u64>,
    /// The item's name, unique within the list.
    pub(super) name: String,
}

/// Which page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// Most items of it.
    pub(super) size: usize,
    /// It begins after this place.
    pub(super) after: Option<Place>,
    /// Stands for the list and its filters in tokens.
    mark: u32,
}

impl Place {
    /// A place.
    #[must_use]
    pub(super) fn new(at: u64, name: impl Into<String>) -> Self {
        Self {
            at: Reverse(at),
            name: name.into(),
        }
    }
}

impl Page {
    /// Reads a token; `filters` is the request with its page fields cleared.
    pub(super) fn parse(
        size: usize,
        token: &str,
        filters: &impl Message,
        all: &mut Violations,
    ) -> Self {
        let mark = crc32c::crc32c(&filters.encode_to_vec());
        let mut page = Self {
            size,
            after: None,
            mark,
        };
        if !token.is_empty() {
            page.after = read(token, mark);
            if page.after.is_none() {
                let problem = "is no next_page_token of a list with these filters; leave it empty \
                               for the first page";
                all.add("page_token", format!("{} {problem}", shown(token)));
            }
        }
        page
    }

    /// The items of this page out of all items that pass the filters, and the token of the next.
    #[must_use]
    pub(super) fn cut(&self, mut places: Vec<Place>) -> (Vec<Place>, String) {
        if let Some(after) = &self.after {
            places.retain(|place| place > after);
        }
        if places.len() > self.size {
            // Only the page needs to be in order.
            places.select_nth_unstable(self.size);
            places.truncate(self.size);
            places.sort_unstable();
            let token = places
                .last()
                .map(|last| self.token(last))
                .unwrap_or_default();
            return (places, token);
        }
        places.sort_unstable();
        (places, String::new())
    }

    fn token(&self, last: &Place) -> String {
        URL_SAFE_NO_PAD.encode(format!("{:08x}:{}:{}", self.mark, last.at.0, last.name))
    }
}

fn read(token: &str, mark: u32) -> Option<Place> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let mut parts = text.splitn(3, ':');
    let marked = u32::from_str_radix(parts.next()?, 16).ok()?;
    let at = parts.next()?.parse().ok()?;
    let place = Place::new(at, parts.next()?);
    (marked == mark).then_some(place)
}
