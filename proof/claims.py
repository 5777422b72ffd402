"""The claims: what README.md says, and what shows it. A claim that nothing shows is not in it."""

from __future__ import annotations

from proof.claim import Claim, Subject, tests
from proof.claims_adverse import ADVERSE, INPUT, UPGRADES
from proof.claims_figures import MEASURED
from proof.claims_statistics import STATISTICS
from proof.claims_working import DASHBOARD, DATA, DELIVERY, RELIABILITY

_PARITY = "test_parity.py::test_ninety_days_and_four_hundred_points"
_LEARNS = "test_replay_learning.py::test_thirty_days_of_ten_symbols_equal_their_retro_scan"
_LAWS = "test_execution_laws.py::"

NO_LOOK_AHEAD = Subject(
    title="No look-ahead",
    claims=(
        Claim(
            says="Each bar is decided from its own window: nothing later changes a decision (T1).",
            by=tests(_PARITY, "test_leaks.py::test_the_engine_as_it_is_keeps_the_law"),
            readme="Each bar is decided from its own window alone, so nothing later can change it.",
        ),
        Claim(
            says="Leaks that are planted are seen, in decisions and in learning (T2).",
            by=tests(
                "test_leaks.py::test_a_planted_leak_is_reported",
                "test_leaks.py::test_the_owners_verify_reports_a_leak",
                "test_meta_laws.py::test_a_judge_who_knew_is_reported",
            ),
        ),
        Claim(
            says="A candidate of the past is scored only by a model whose data ended before it.",
            by=tests(
                "test_learning.py::test_scores_come_from_folds_that_ended_before_the_candidate",
                "test_learning.py::test_later_outcomes_cannot_change_an_earlier_score",
            ),
            readme="A candidate of the past is scored only by a model whose data ended before it.",
        ),
        Claim(
            says="No later minute changes what is known of a trade at an instant (T7).",
            by=tests(_LAWS + "test_no_later_bar_changes_what_is_known_at_an_instant"),
        ),
    ),
)

LIVE_IS_RETRO = Subject(
    title="Live = retro",
    claims=(
        Claim(
            says="Thirty days of ten symbols lived through, learning on the way, are their"
            " retro-scan: every column (T3).",
            by=tests(_LEARNS),
            readme="The live scan's own function over history",
        ),
        Claim(
            says="Two days without a model, an outage among them, are their retro-scan too.",
            by=tests(
                "test_pipeline.py::test_the_scheduler_and_the_retro_scan_agree_on_every_column",
                "test_pipeline.py::test_the_bars_are_the_same_bit_for_bit",
            ),
        ),
        Claim(
            says="Repeating a retro-scan, or any other job, changes nothing.",
            by=tests("test_pipeline.py::test_doing_any_job_again_changes_nothing"),
            readme="Repeating it changes nothing.",
        ),
        Claim(
            says="After downtime the missed minutes are caught up in time order.",
            by=tests(
                "test_pipeline.py::test_four_hours_away_change_only_what_is_late",
                "test_sync.py::test_being_away_changes_nothing_in_the_end",
            ),
            readme="After downtime the missed minutes are caught up in time order",
        ),
        Claim(
            says="`maintenance.py verify` finds look-ahead and differences on the owner's own candles.",
            by=tests(
                "test_maintain.py::test_verify_finds_live_and_retro_alike",
                "test_leaks.py::test_the_command_fails_with_a_line_for_each_difference",
            ),
            readme="live = past, no look-ahead, on my own candles",
        ),
        Claim(
            says="Rows of `--stride` and `--limit-per-pair` are marked.",
            by=tests(
                "test_retro.py::test_a_limit_keeps_the_newest_of_each_series",
                "test_retro.py::test_a_stride_counts_from_the_first_bar",
            ),
            readme="their rows are marked and never trained on",
        ),
    ),
)

BOOKS = Subject(
    title="Books",
    claims=(
        Claim(
            says="Gross less costs is net, in every trade and in every book.",
            by=tests(
                _LAWS + "test_gross_less_costs_is_net",
                "test_performance.py::test_figures_that_are_sums_follow_the_ledger",
                "test_results.py::test_live_paper_and_shadow_add_up_to_all",
            ),
        ),
        Claim(
            says="No table, card or message shows a win-rate or a chance without the coin flip's.",
            by=tests(
                "test_results.py::test_a_win_rate_is_never_written_without_the_coin_flips",
                "test_messages.py::test_a_chance_is_never_shown_without_the_coin_flip",
                "test_desk.py::test_a_chance_never_stands_without_the_coin_flip",
            ),
            readme="A win-rate is never shown without the coin flip's",
        ),
        Claim(
            says="90 % intervals cover what is true nine times in ten.",
            by=tests("test_performance.py::test_intervals_cover_as_often_as_they_say"),
            readme="Every figure has its n and its interval",
        ),
    ),
)

EXECUTION = Subject(
    title="Execution",
    claims=(
        Claim(
            says="An order exists only once a person can have read the message.",
            by=tests(
                "test_execution.py::test_what_trades_before_the_order_exists_counts_for_nothing"
            ),
            readme="An order exists only once a person can have read the message",
        ),
        Claim(
            says="A resting order fills only when price trades through it, and the stop comes first"
            " (T9).",
            by=tests(
                "test_execution.py::test_each_case_ends_as_worked_by_hand_and_so_does_its_mirror",
                _LAWS + "test_a_second_executor_written_from_the_words_tells_the_same",
            ),
            readme="a resting order fills only when price trades *through* it; the stop comes first"
            " when a minute holds both",
        ),
        Claim(
            says="The same for a minute and for a year.",
            by=tests(
                _LAWS + "test_fed_each_minute_alone_an_order_ends_the_same",
                _LAWS + "test_each_order_of_a_batch_ends_as_it_would_alone",
            ),
            readme="one compiled function, the same for a minute and for a year",
        ),
        Claim(
            says="No exit policy earns anything on a driftless walk (T8).",
            by=tests("test_random_walk.py::test_a_hundred_thousand_trades_earn_nothing"),
        ),
    ),
)

SUBJECTS = (
    NO_LOOK_AHEAD,
    LIVE_IS_RETRO,
    BOOKS,
    EXECUTION,
    STATISTICS,
    RELIABILITY,
    ADVERSE,
    INPUT,
    UPGRADES,
    DATA,
    DELIVERY,
    *MEASURED,
    DASHBOARD,
)
