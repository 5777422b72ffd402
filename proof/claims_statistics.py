"""Claims of the meta-model's statistics: T4 to T6 and T10 to T17 of docs/tests.md."""

from __future__ import annotations

from proof.claim import Claim, Figures, Subject, tests

_NULLS, _PLANTED, _LAWS = "test_meta_nulls.py::", "test_meta_planted.py::", "test_meta_laws.py::"

STATISTICS = Subject(
    title="Statistics",
    claims=(
        Claim(
            says="On driftless walks the model ranks like the coin flip, earns no certificates"
            " beyond luck, and the lift's interval holds 0 (T4, T10).",
            by=tests(_NULLS + "test_nothing_is_found_in_two_hundred_walks"),
            readme="On NULL an honest engine must lose its costs and find nothing",
        ),
        Claim(
            says="Shuffled outcomes teach nothing (T5).",
            by=tests(_NULLS + "test_shuffled_labels_teach_nothing_twenty_times"),
        ),
        Claim(
            says="The walk-forward splits are those of brute force, in 5000 cases (T6).",
            by=tests(_LAWS + "test_folds_hold_what_brute_force_allows_in_5000_cases"),
            readme="purged by each trade's end, one day of embargo",
        ),
        Claim(
            says="Copied luck proves nothing: certificates count effective samples (T11).",
            by=tests(_NULLS + "test_copied_luck_proves_nothing_in_two_hundred_worlds"),
            readme="Thresholds are granted only with a certificate on effective samples.",
        ),
        Claim(
            says="A planted edge is certified and mostly taken (T12).",
            by=tests(_PLANTED + "test_planted_edges_are_certified_in_fifty_worlds"),
            readme="on PLANTED it must find what is there",
        ),
        Claim(
            says="An edge just below the target is not certified (T13).",
            by=tests(_PLANTED + "test_edges_just_below_the_target_in_fifty_worlds"),
        ),
        Claim(
            says="The same rows give the same bytes, with one thread or two (T14).",
            by=tests(
                "test_learning.py::test_training_twice_gives_the_same_bytes",
                _LAWS + "test_one_thread_and_two_give_the_same_bytes",
            ),
        ),
        Claim(
            says="Challengers of noise are kept out; an equal one may be promoted, and rollback is"
            " bit-equal (T15).",
            by=tests(
                _LAWS + "test_challengers_of_noise_are_kept_out",
                _LAWS + "test_an_equal_one_is_promoted_and_rolled_back_bit_for_bit",
            ),
            readme="`rollback` goes back one bundle",
        ),
        Claim(
            says="A kept promise is called broken in no more than one life in twenty, a broken one"
            " is found within 150 trades (T16).",
            by=tests(
                "test_monitoring.py::test_a_promise_kept_is_called_broken_in_no_more_than_alpha_of_lives",
                "test_monitoring.py::test_a_fall_from_60_to_45_percent_is_found_within_150_trades",
            ),
            readme="one false alarm in twenty models' lives",
        ),
        Claim(
            says="No row has two roles in a fold (T17).",
            by=tests(_LAWS + "test_no_row_has_two_roles_in_a_fold"),
            readme="calibrated on scores it had not seen",
        ),
        Claim(
            says="A streak is told only beyond what nine of ten records like this hold.",
            by=tests(
                "test_messages.py::test_a_streak_is_told_only_beyond_its_band",
                "test_streaks.py::test_the_band_is_the_shortest_that_nine_of_ten_keep",
            ),
            readme="only when it is longer than nine of ten records like this hold",
        ),
        Claim(
            says="The evaluation claims no edge where there is none, and its intervals hold.",
            by=tests("test_evaluation.py::test_without_skill_few_intervals_miss_nothing"),
        ),
        Claim(
            says="It finds drift in the prices of a pair that was never trained on.",
            by=tests(
                "test_evaluation.py::test_drift_in_the_prices_is_found_in_a_pair_never_trained_on"
            ),
        ),
        Claim(
            says="Over twenty seeds the demo's edge is certified where it is, and not where it is"
            " not.",
            by=Figures(run="seeds", places=["summary"]),
            readme="the edge was certified in 19 of 20 PLANTED markets, and in 0 of 20 NULL ones",
            quotes="19 of 20 PLANTED markets, and in 0 of 20",
        ),
        Claim(
            says="A champion that earns too little for luck is DEGRADED once, and told once.",
            by=tests(
                "test_monitor_job.py::test_a_champion_that_loses_is_degraded_once_and_the_owner_told_once",
                "test_monitor_job.py::test_a_champion_that_keeps_its_word_stays_certified",
            ),
            readme="its state goes from CERTIFIED to DEGRADED",
        ),
    ),
)
