//! A log whose entries were copied becomes a session of its own: under its own name, at rest.

use super::{Draft, message, step};
use crate::{
    event::{SessionForked, SessionImported, SettlementAcknowledged},
    input::{AdoptOrigin, Command},
    outcome::EndReason,
    rejection::Rejection,
};

pub(super) fn adopt(
    draft: &mut Draft,
    by: Command,
    session: String,
    namespace: String,
    origin: AdoptOrigin,
) -> Result<(), Rejection> {
    message::exists(draft)?;
    // Answers that were copied are those of the original.
    if !draft.state.copied {
        return if draft.is_answered(&by.request_id) {
            Ok(())
        } else {
            Err(Rejection::SessionExists { session })
        };
    }
    let at = draft.at;
    let reason = match origin {
        AdoptOrigin::Fork {
            from,
            from_seq,
            labels,
        } => {
            draft.emit(SessionForked {
                session,
                namespace,
                at,
                from,
                from_seq,
                labels,
            });
            format!("forked at seq {from_seq}")
        }
        AdoptOrigin::Import { from, from_seq } => {
            draft.emit(SessionImported {
                session,
                namespace,
                at,
                from,
                from_seq,
            });
            "imported".to_owned()
        }
    };
    step::end(
        draft,
        EndReason::Cancelled {
            by: by.principal,
            reason,
        },
    );
    // Named budgets hold no reservation of the copy.
    for (call, attempt) in draft.state.settling.clone().into_keys() {
        draft.emit(SettlementAcknowledged { call, attempt });
    }
    Ok(())
}
