"""Claims of the engine at work: reliability, data, delivery, dashboard and reports."""

from __future__ import annotations

from proof.claim import Bench, Claim, Subject, tests

RELIABILITY = Subject(
    title="Reliability",
    claims=(
        Claim(
            says="Any process may be killed at any time: 200 kills leave no trace.",
            by=tests("test_kills.py::test_two_hundred_kills_leave_no_trace"),
            readme="Any process may be killed at any time",
        ),
        Claim(
            says="A new database works itself up through ten kills.",
            by=tests("test_bootstrap_jobs.py::test_kills_while_it_works_up_leave_no_trace"),
            readme="It may be stopped at any time",
        ),
        Claim(
            says="SIGTERM ends it within 5 seconds, also while the exchange is silent.",
            by=tests(
                "test_unattended.py::test_a_running_engine_shows_that_it_lives_and_ends_cleanly",
                "test_unattended.py::test_a_hung_request_does_not_hold_up_the_end",
            ),
            readme="SIGTERM ends it within 5 seconds",
        ),
        Claim(
            says="A second scheduler refuses to start and names the first one's pid.",
            by=tests("test_kills.py::test_a_second_scheduler_is_refused_and_a_stop_is_clean"),
            readme="A second scheduler refuses to start and names the first one's pid.",
        ),
        Claim(
            says="Moved to another machine it is the same, without secrets, and muted.",
            by=tests("test_pack.py::test_elsewhere_it_is_the_same_and_muted"),
            readme="until then muted",
        ),
        Claim(
            says="A reader that never lets go of the database is warned of.",
            by=tests("test_unattended.py::test_a_reader_that_holds_the_wal_is_warned_of"),
            readme="the log, `doctor` and a message say so",
        ),
        Claim(
            says="Tuning writes its block of config.yaml and changes no other byte.",
            by=tests(
                "test_config_splice.py::test_what_is_spliced_reads_back_and_nothing_else_changed"
            ),
            readme="no other byte changed",
        ),
        Claim(
            says="A mutilated config.yaml is read or refused in one line, ten thousand times.",
            by=tests("test_config.py::test_ten_thousand_mutilated_files_are_read_or_refused"),
            readme="A bad edit, or one that needs a restart, is refused with one message",
        ),
        Claim(
            says="You are told once when a kind of work fails and once when it works again.",
            by=tests(
                "test_recorded.py::test_a_kind_of_failure_is_told_once_and_its_end_once",
            ),
            readme="You are told once when a kind of work fails and once when it works again",
        ),
        Claim(
            says="Silence of the exchange is told once, and its end with what happened.",
            by=tests(
                "test_silence.py::test_silence_of_the_exchange_is_told_once_and_its_end_with_what_happened",
            ),
            readme="once when candles stay out for three minutes",
        ),
        Claim(
            says="Weekly work runs at low priority within limits of time and memory.",
            by=tests(
                "test_recorded.py::test_a_child_is_nice_alone_on_its_core_and_heard",
                "test_recorded.py::test_a_child_beyond_its_limits_is_killed",
            ),
            readme="Weekly work runs at low priority on one core, at most an hour and 2 GB.",
        ),
        Claim(
            says="A backup is verified, and a restored one goes on as if nothing had been.",
            by=tests(
                "test_maintain.py::test_a_backup_holds_everything_and_leaves_no_crumbs",
                "test_maintain.py::test_a_restored_backup_goes_on_as_if_nothing_had_been",
            ),
            readme="The backup is made daily and verified",
        ),
        Claim(
            says="A running scheduler takes an edit in between two looks and says what it costs.",
            by=tests(
                "test_edits.py::test_a_good_edit_is_taken_and_told_once",
                "test_edits.py::test_an_edit_is_answered_with_its_cost",
            ),
            readme="A running scheduler takes an edit in between two looks and answers with what it costs",
        ),
        Claim(
            says="An unknown key is refused with the nearest known one.",
            by=tests(
                "test_config.py::test_an_unknown_key_is_refused_with_the_nearest_known_one",
            ),
            readme="An unknown key is refused with the nearest known one.",
        ),
        Claim(
            says="What the demo counts after its kill finds what is lost.",
            by=tests(
                "test_demo.py::test_the_count_finds_what_is_lost",
                "test_demo.py::test_an_undisturbed_replay_lost_nothing",
            ),
            readme="counts what that lost or doubled",
        ),
    ),
)

DATA = Subject(
    title="Data",
    claims=(
        Claim(
            says="Only candles final by the exchange's clock are stored.",
            by=tests("test_sync.py::test_only_final_candles_are_stored"),
            readme="only candles final by the exchange's clock",
        ),
        Claim(
            says="Whatever is wrong with answers is repaired, live and in a download.",
            by=tests(
                "test_vices_bitget.py::test_all_vices_at_once_cost_the_live_cycle_nothing",
                "test_vices_bitget.py::test_all_vices_at_once_cost_a_backfill_only_its_runs",
            ),
            readme="A page that comes short is asked for again",
        ),
        Claim(
            says="All recorded candles come back as they were, bit for bit.",
            by=tests("test_recorded_files.py::test_all_recorded_candles_come_back_as_they_were"),
        ),
        Claim(
            says="An import that dies anywhere ends as if it had not.",
            by=tests("test_imports.py::test_an_import_that_dies_anywhere_ends_as_if_it_had_not"),
            readme="Imports are checked before the first row is stored, resume when interrupted",
        ),
        Claim(
            says="A download interrupted anywhere resumes to the same end.",
            by=tests(
                "test_backfill.py::test_a_backfill_interrupted_anywhere_resumes_to_the_same_end"
            ),
            readme="Stop it at any time; it goes on where it was",
        ),
        Claim(
            says="Two markets meet at a seam, one market has none.",
            by=tests(
                "test_seams.py::test_files_of_another_exchange_meet_at_a_seam",
                "test_seams.py::test_files_of_this_exchange_join_without_a_seam",
            ),
            readme="it is one market and there is none",
        ),
        Claim(
            says="A hole is unknown until it was read three times, then settled.",
            by=tests(
                "test_sync.py::test_a_short_hole_while_others_traded_is_no_trades_after_three_reads",
                "test_sync.py::test_what_is_not_quiet_is_missing_after_ten_minutes",
            ),
            readme="`unknown` until it was read three times",
        ),
        Claim(
            says="A setup across a missing minute is refused.",
            by=tests(
                "test_plans.py::test_a_hole_counts_from_the_first_pivot_to_the_decision",
            ),
            readme="A setup across a missing minute is refused (`hole`).",
        ),
        Claim(
            says="An export imported elsewhere is the same.",
            by=tests(
                "test_exports.py::test_an_export_imported_elsewhere_is_the_same",
            ),
            readme="a file per pair and year",
        ),
    ),
)

DELIVERY = Subject(
    title="Delivery",
    claims=(
        Claim(
            says="1000 messages through rate limits, resets, time-outs and 50 kills: none lost,"
            " repeats only after doubt and marked.",
            by=tests("test_outbox_storm.py::test_a_long_storm_with_kills_loses_nothing"),
            readme="1000 messages through rate limits, resets, time-outs and 50 kills: none lost,"
            " repeats only after doubt and marked",
        ),
        Claim(
            says="The word SIGNAL and the green mark need a certificate.",
            by=tests("test_messages.py::test_signal_and_the_green_mark_need_a_certificate"),
            readme="`LIVE`, the word SIGNAL and the green mark need a certificate.",
        ),
        Claim(
            says="Every kind of message is as it was read, byte for byte.",
            by=tests("test_messages.py::test_every_kind_of_message_is_as_it_was_read"),
            readme="Every kind of message stands in `tests/golden`.",
        ),
        Claim(
            says="Commands are taken from the owner's chat only, each once.",
            by=tests(
                "test_commands.py::test_strangers_are_counted_and_get_no_answer",
                "test_commands.py::test_a_killed_process_carries_out_each_command_once",
            ),
            readme="from your chat only",
        ),
        Claim(
            says="The token is nowhere: not in the file, the log, a report or an error.",
            by=tests("test_secrets.py::test_the_token_is_nowhere"),
        ),
        Claim(
            says="A pause holds back new signals, live and in a later retro-scan alike.",
            by=tests(
                "test_commands.py::test_a_pause_is_what_the_scan_saw",
                "test_retro.py::test_a_pause_of_the_owner_holds_in_the_past_too",
            ),
            readme="A pause holds back new signals, live and in a later retro-scan alike",
        ),
    ),
)

DASHBOARD = Subject(
    title="Dashboard and reports",
    claims=(
        Claim(
            says="Dashboard, report and `--json` show the same figures.",
            by=tests(
                "test_browser.py::test_the_figures_shown_are_those_of_the_command",
                "test_report.py::test_a_report_shows_the_figures_of_the_views",
            ),
            readme="dashboard, HTML report and `--json` show the same one",
        ),
        Claim(
            says="It only reads and is served to this machine only.",
            by=tests(
                "test_dashboard.py::test_the_page_is_served_to_this_machine_only",
                "test_views.py::test_views_leave_the_database_as_it_was",
            ),
            readme="it only reads, is served to this machine only (127.0.0.1)",
        ),
        Claim(
            says="Every choice is in the address, and a link opens what you see.",
            by=tests("test_browser.py::test_a_choice_is_a_link_and_a_link_is_a_choice"),
            readme="a link opens what you see",
        ),
        Claim(
            says="A report opens without a network.",
            by=tests("test_report.py::test_a_report_fetches_nothing"),
            readme="one HTML file that opens without a network",
        ),
        Claim(
            says="The first screen with its chart, in a browser over a busy owner's database",
            by=Bench(name="pages", row="warm: chart", column="ours"),
        ),
    ),
)
