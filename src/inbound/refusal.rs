//! Which of the fixed reasons a refusal has, for the metrics. Decided by the reply alone, so that no refusal is left out.

use crate::observe::metrics::RefusalReason;
use crate::smtp::Reply;

/// Why the gateway itself refused a message with this reply.
pub fn refusal_reason(reply: &Reply) -> RefusalReason {
    let enhanced = reply.enhanced().map(|it| (it.class, it.subject, it.detail));
    match (reply.code(), enhanced) {
        (530 | 534 | 535 | 538, _) | (_, Some((5, 7, 0))) => RefusalReason::Login,
        (_, Some((5, 7, _))) => RefusalReason::Sender,
        (_, Some((4, 7, 0))) if reply.code() == 452 => RefusalReason::Rate,
        (_, Some((4, 3, 1))) if *reply == Reply::no_memory() => RefusalReason::Memory,
        (_, Some((4, 3, 1))) => RefusalReason::Disk,
        (_, Some((4, 3, 0))) => RefusalReason::Storage,
        (552, _) => RefusalReason::Size,
        (_, Some((5, 4, 6))) => RefusalReason::Loop,
        (_, Some((5, 5 | 6, _))) => RefusalReason::Content,
        _ => RefusalReason::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::EnhancedCode;
    use RefusalReason::*;

    #[test]
    fn each_refusal_has_the_reason_that_an_operator_would_name() {
        let rate = Reply::new(452, EnhancedCode::new(4, 7, 0), "try again in 5 min");
        let sender = Reply::new(550, EnhancedCode::new(5, 7, 1), "Not allowed to send as <a@b>");
        let no_key = Reply::new(550, EnhancedCode::new(5, 7, 20), "No DKIM key");
        for (reply, reason) in [
            (Reply::authentication_required(), Login),
            (Reply::not_allowed(), Login),
            (Reply::must_start_tls(), Login),
            (sender, Sender),
            (no_key, Sender),
            (Reply::message_too_big(), Size),
            (Reply::header_too_large(), Size),
            (Reply::never_enough_memory(), Size),
            (Reply::no_memory(), Memory),
            (Reply::no_space(), Disk),
            (Reply::storage_trouble(), Storage),
            (Reply::queue_moved(), Storage),
            (rate, Rate),
            (Reply::nul_in_message(), Content),
            (Reply::stray_line_ending(), Content),
            (Reply::mail_loop(), Loop),
            (Reply::still_in_progress(), Other),
        ] {
            assert_eq!(refusal_reason(&reply), reason, "{reply}");
        }
    }
}
