//! What monitoring sees of imports: the export behind each, and the answers under way.
//!
//! Owns read-only views. Changes nothing.

use super::{Response, covering};
use crate::auth::account::{Account, Export, Import, Sampling};
use crate::broker::Broker;
use crate::id::AccountId;

/// An answer that an account has to give.
#[derive(Clone, Copy, Debug)]
pub struct ResponseView<'a> {
    /// Its subject in the account.
    pub token: &'a [u8],
    /// Who asked.
    pub to: &'a str,
    /// What the asker called its answer.
    pub reply: &'a [u8],
    /// Does the account see who asks?
    pub share: bool,
    /// How long it takes is measured.
    pub tracking: Option<TrackingView<'a>>,
}

/// A measurement under way.
#[derive(Clone, Copy, Debug)]
pub struct TrackingView<'a> {
    /// Where it will be told.
    pub subject: &'a [u8],
    /// Which requests are measured.
    pub sampling: Sampling,
    /// The headers that asked for it, as JSON; empty: none did.
    pub header: &'a [u8],
}

/// The export an import is covered by.
pub fn export_of<'a>(accounts: &'a [Account], import: &Import) -> Option<&'a Export> {
    covering(accounts.iter().find(|account| account.name == import.account)?, import)
}

impl Broker {
    /// The answers an account has to give, by their subjects.
    pub fn responses_of(&self, account: AccountId) -> impl Iterator<Item = ResponseView<'_>> {
        let responses = self.core.account(account).map(|state| &state.crossing.responses);
        responses.into_iter().flatten().map(|(token, response)| self.response(token, response))
    }

    fn response<'a>(&'a self, token: &'a [u8], response: &'a Response) -> ResponseView<'a> {
        ResponseView {
            token,
            to: self.account_name(response.to),
            reply: &response.reply,
            share: response.share,
            tracking: response.tracking.as_deref().map(super::latency::Tracking::view),
        }
    }
}
