//! The Redis backend against real servers.

mod single {
    use crate::queue::conformance::conformance;
    use crate::queue::redis::testing::OwnServer;

    // What works so far.
    conformance! { OwnServer::single();
        a_lost_answer_makes_the_next_attempt_suspect,
        sender_domains_take_turns,
        turns_go_on_where_they_stopped,
        a_crowd_of_domains_with_nothing_due_hides_nobody,
        a_full_lane_does_not_delay_another,
        what_was_handed_over_is_a_possible_duplicate_after_a_crash,
        mail_from_a_clock_that_was_ahead_hides_no_old_mail,
        a_stop_makes_mail_older_by_what_can_be_trusted_of_it,
        ages_are_what_was_lived_whatever_the_clock_says,
        the_clock_may_go_back_a_day,
        a_lease_whose_caller_is_gone_goes_back,
    }
}
