"""The claims: what README.md says, and what shows it. A claim that nothing shows is not in it."""

from __future__ import annotations

from proof.claim import Bench, Cases, Claim, Subject
from proof.claims_figures import MEASURED
from proof.claims_statistics import STATISTICS


def _tests(*ids: str) -> Cases:
    return Cases(ids=[f"tests/{name}" for name in ids])


_PARITY = "test_parity.py::test_ninety_days_and_four_hundred_points"
_LEARNS = "test_replay_learning.py::test_thirty_days_of_ten_symbols_equal_their_retro_scan"
_LAWS = "test_execution_laws.py::"

NO_LOOK_AHEAD = Subject(
    title="No look-ahead",
    claims=(
        Claim(
            says="Each bar is decided from its own window: nothing later changes a decision (T1).",
            by=_tests(_PARITY, "test_leaks.py::test_the_engine_as_it_is_keeps_the_law"),
            readme="Each bar is decided from its own window alone, so nothing later can change it.",
        ),
        Claim(
            says="Leaks that are planted are seen, in decisions and in learning (T2).",
            by=_tests(
                "test_leaks.py::test_a_planted_leak_is_reported",
                "test_leaks.py::test_the_owners_verify_reports_a_leak",
                "test_meta_laws.py::test_a_judge_who_knew_is_reported",
            ),
        ),
        Claim(
            says="A candidate of the past is scored only by a model whose data ended before it.",
            by=_tests(
                "test_learning.py::test_scores_come_from_folds_that_ended_before_the_candidate",
                "test_learning.py::test_later_outcomes_cannot_change_an_earlier_score",
            ),
            readme="A candidate of the past is scored only by a model whose data ended before it.",
        ),
        Claim(
            says="No later minute changes what is known of a trade at an instant (T7).",
            by=_tests(_LAWS + "test_no_later_bar_changes_what_is_known_at_an_instant"),
        ),
    ),
)

LIVE_IS_RETRO = Subject(
    title="Live = retro",
    claims=(
        Claim(
            says="Thirty days of ten symbols lived through, learning on the way, are their"
            " retro-scan: every column (T3).",
            by=_tests(_LEARNS),
            readme="The live scan's own function over history",
        ),
        Claim(
            says="Two days without a model, an outage among them, are their retro-scan too.",
            by=_tests(
                "test_pipeline.py::test_the_scheduler_and_the_retro_scan_agree_on_every_column",
                "test_pipeline.py::test_the_bars_are_the_same_bit_for_bit",
            ),
        ),
        Claim(
            says="Repeating a retro-scan, or any other job, changes nothing.",
            by=_tests("test_pipeline.py::test_doing_any_job_again_changes_nothing"),
            readme="Repeating it changes nothing.",
        ),
        Claim(
            says="After downtime the missed minutes are caught up in time order.",
            by=_tests(
                "test_pipeline.py::test_four_hours_away_change_only_what_is_late",
                "test_sync.py::test_being_away_changes_nothing_in_the_end",
            ),
            readme="After downtime the missed minutes are caught up in time order",
        ),
    ),
)

BOOKS = Subject(
    title="Books",
    claims=(
        Claim(
            says="Gross less costs is net, in every trade and in every book.",
            by=_tests(
                _LAWS + "test_gross_less_costs_is_net",
                "test_performance.py::test_figures_that_are_sums_follow_the_ledger",
                "test_results.py::test_live_paper_and_shadow_add_up_to_all",
            ),
        ),
        Claim(
            says="No table, card or message shows a win-rate or a chance without the coin flip's.",
            by=_tests(
                "test_results.py::test_a_win_rate_is_never_written_without_the_coin_flips",
                "test_messages.py::test_a_chance_is_never_shown_without_the_coin_flip",
                "test_desk.py::test_a_chance_never_stands_without_the_coin_flip",
            ),
            readme="A win-rate is never shown without the coin flip's",
        ),
        Claim(
            says="90 % intervals cover what is true nine times in ten.",
            by=_tests("test_performance.py::test_intervals_cover_as_often_as_they_say"),
            readme="Every figure has its n and its interval",
        ),
    ),
)

EXECUTION = Subject(
    title="Execution",
    claims=(
        Claim(
            says="An order exists only once a person can have read the message.",
            by=_tests(
                "test_execution.py::test_what_trades_before_the_order_exists_counts_for_nothing"
            ),
            readme="An order exists only once a person can have read the message",
        ),
        Claim(
            says="A resting order fills only when price trades through it, and the stop comes first"
            " (T9).",
            by=_tests(
                "test_execution.py::test_each_case_ends_as_worked_by_hand_and_so_does_its_mirror",
                _LAWS + "test_a_second_executor_written_from_the_words_tells_the_same",
            ),
            readme="a resting order fills only when price trades *through* it; the stop comes first"
            " when a minute holds both",
        ),
        Claim(
            says="The same for a minute and for a year.",
            by=_tests(
                _LAWS + "test_fed_each_minute_alone_an_order_ends_the_same",
                _LAWS + "test_each_order_of_a_batch_ends_as_it_would_alone",
            ),
            readme="one compiled function, the same for a minute and for a year",
        ),
        Claim(
            says="No exit policy earns anything on a driftless walk (T8).",
            by=_tests("test_random_walk.py::test_a_hundred_thousand_trades_earn_nothing"),
        ),
    ),
)

RELIABILITY = Subject(
    title="Reliability",
    claims=(
        Claim(
            says="Any process may be killed at any time: 200 kills leave no trace.",
            by=_tests("test_kills.py::test_two_hundred_kills_leave_no_trace"),
            readme="Any process may be killed at any time",
        ),
        Claim(
            says="A new database works itself up through ten kills.",
            by=_tests("test_bootstrap_jobs.py::test_kills_while_it_works_up_leave_no_trace"),
            readme="It may be stopped at any time",
        ),
        Claim(
            says="SIGTERM ends it within 5 seconds, also while the exchange is silent.",
            by=_tests(
                "test_unattended.py::test_a_running_engine_shows_that_it_lives_and_ends_cleanly",
                "test_unattended.py::test_a_hung_request_does_not_hold_up_the_end",
            ),
            readme="SIGTERM ends it within 5 seconds",
        ),
        Claim(
            says="A second scheduler refuses to start and names the first one's pid.",
            by=_tests("test_kills.py::test_a_second_scheduler_is_refused_and_a_stop_is_clean"),
            readme="A second scheduler refuses to start and names the first one's pid.",
        ),
        Claim(
            says="Moved to another machine it is the same, without secrets, and muted.",
            by=_tests("test_pack.py::test_elsewhere_it_is_the_same_and_muted"),
            readme="until then muted",
        ),
        Claim(
            says="A reader that never lets go of the database is warned of.",
            by=_tests("test_unattended.py::test_a_reader_that_holds_the_wal_is_warned_of"),
            readme="the log, `doctor` and a message say so",
        ),
        Claim(
            says="Tuning writes its block of config.yaml and changes no other byte.",
            by=_tests(
                "test_config_splice.py::test_what_is_spliced_reads_back_and_nothing_else_changed"
            ),
            readme="no other byte changed",
        ),
        Claim(
            says="A mutilated config.yaml is read or refused in one line, ten thousand times.",
            by=_tests("test_config.py::test_ten_thousand_mutilated_files_are_read_or_refused"),
            readme="A bad edit, or one that needs a restart, is refused with one message",
        ),
    ),
)

DATA = Subject(
    title="Data",
    claims=(
        Claim(
            says="Only candles final by the exchange's clock are stored.",
            by=_tests("test_sync.py::test_only_final_candles_are_stored"),
            readme="only candles final by the exchange's clock",
        ),
        Claim(
            says="Whatever is wrong with answers is repaired, live and in a download.",
            by=_tests(
                "test_vices_bitget.py::test_all_vices_at_once_cost_the_live_cycle_nothing",
                "test_vices_bitget.py::test_all_vices_at_once_cost_a_backfill_only_its_runs",
            ),
            readme="A page that comes short is asked for again",
        ),
        Claim(
            says="All recorded candles come back as they were, bit for bit.",
            by=_tests("test_recorded_files.py::test_all_recorded_candles_come_back_as_they_were"),
        ),
        Claim(
            says="An import that dies anywhere ends as if it had not.",
            by=_tests("test_imports.py::test_an_import_that_dies_anywhere_ends_as_if_it_had_not"),
            readme="Imports are checked before the first row is stored, resume when interrupted",
        ),
        Claim(
            says="A download interrupted anywhere resumes to the same end.",
            by=_tests(
                "test_backfill.py::test_a_backfill_interrupted_anywhere_resumes_to_the_same_end"
            ),
            readme="Stop it at any time; it goes on where it was",
        ),
        Claim(
            says="Two markets meet at a seam, one market has none.",
            by=_tests(
                "test_seams.py::test_files_of_another_exchange_meet_at_a_seam",
                "test_seams.py::test_files_of_this_exchange_join_without_a_seam",
            ),
            readme="it is one market and there is none",
        ),
    ),
)

DELIVERY = Subject(
    title="Delivery",
    claims=(
        Claim(
            says="1000 messages through rate limits, resets, time-outs and 50 kills: none lost,"
            " repeats only after doubt and marked.",
            by=_tests("test_outbox_storm.py::test_a_long_storm_with_kills_loses_nothing"),
            readme="1000 messages through rate limits, resets, time-outs and 50 kills: none lost,"
            " repeats only after doubt and marked",
        ),
        Claim(
            says="The word SIGNAL and the green mark need a certificate.",
            by=_tests("test_messages.py::test_signal_and_the_green_mark_need_a_certificate"),
            readme="`LIVE`, the word SIGNAL and the green mark need a certificate.",
        ),
        Claim(
            says="Every kind of message is as it was read, byte for byte.",
            by=_tests("test_messages.py::test_every_kind_of_message_is_as_it_was_read"),
            readme="Every kind of message stands in `tests/golden`.",
        ),
        Claim(
            says="Commands are taken from the owner's chat only, each once.",
            by=_tests(
                "test_commands.py::test_strangers_are_counted_and_get_no_answer",
                "test_commands.py::test_a_killed_process_carries_out_each_command_once",
            ),
            readme="from your chat only",
        ),
        Claim(
            says="The token is nowhere: not in the file, the log, a report or an error.",
            by=_tests("test_secrets.py::test_the_token_is_nowhere"),
        ),
    ),
)

DASHBOARD = Subject(
    title="Dashboard and reports",
    claims=(
        Claim(
            says="Dashboard, report and `--json` show the same figures.",
            by=_tests(
                "test_browser.py::test_the_figures_shown_are_those_of_the_command",
                "test_report.py::test_a_report_shows_the_figures_of_the_views",
            ),
            readme="dashboard, HTML report and `--json` show the same one",
        ),
        Claim(
            says="It only reads and is served to this machine only.",
            by=_tests(
                "test_dashboard.py::test_the_page_is_served_to_this_machine_only",
                "test_views.py::test_views_leave_the_database_as_it_was",
            ),
            readme="it only reads, is served to this machine only (127.0.0.1)",
        ),
        Claim(
            says="Every choice is in the address, and a link opens what you see.",
            by=_tests("test_browser.py::test_a_choice_is_a_link_and_a_link_is_a_choice"),
            readme="a link opens what you see",
        ),
        Claim(
            says="A report opens without a network.",
            by=_tests("test_report.py::test_a_report_fetches_nothing"),
            readme="one HTML file that opens without a network",
        ),
        Claim(
            says="The first screen's chart is there, in a browser over a busy owner's database.",
            by=Bench(name="pages", row="warm: chart", column="ours"),
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
    DATA,
    DELIVERY,
    *MEASURED,
    DASHBOARD,
)
