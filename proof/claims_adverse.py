"""Claims of what happens when everything goes wrong: faults, kills, hostile input, old databases."""

from __future__ import annotations

from proof.claim import Claim, Subject, tests

ADVERSE = Subject(
    title="Adverse conditions",
    claims=(
        Claim(
            says="A week of the whole product with a faulty exchange and Bot API, kills, full disks,"
            " clocks that are off and edits: every difference from the truth has a recorded reason.",
            by=tests("test_whole_product.py::test_a_bad_week_leaves_the_truth"),
            readme="A week of kills, faults and clocks that are off, compared row by row with the"
            " truth",
        ),
        Claim(
            says="A fault at any statement or file operation is said and leaves no trace.",
            by=tests(
                "test_faults.py::test_a_fault_anywhere_is_said_and_leaves_no_trace",
                "test_faults.py::test_faults_at_later_visits_leave_no_trace_either",
                "test_faults.py::test_a_disk_that_is_really_full_costs_what_was_not_committed",
            ),
            readme="A full disk, a lock or a bad sector at any statement or file operation is said"
            " and leaves nothing half done",
        ),
        Claim(
            says="A kill before or after any commit or rename of any command leaves no trace.",
            by=tests("test_kill_points.py::test_kills_at_every_point_leave_no_trace"),
        ),
        Claim(
            says="Three days away change only how late it was told.",
            by=tests("test_away.py::test_three_days_away_change_only_what_is_late"),
        ),
        Claim(
            says="The scheduler holds no more memory, files or threads at a day's end.",
            by=tests(
                "test_resident.py::test_most_of_a_day_holds_no_more_than_its_beginning",
                "test_resident.py::test_a_scheduler_holds_no_more_after_a_day_than_after_a_third",
            ),
        ),
        Claim(
            says="What is open of a removed pair or timeframe ends as if nothing had been removed.",
            by=tests("test_removed.py::test_what_is_open_ends_as_if_nothing_had_been_removed"),
            readme="A pair or timeframe taken out of `config.yaml` is not scanned any more; what is"
            " open of it is followed to its end",
        ),
    ),
)

INPUT = Subject(
    title="Hostile input: taken by its law or refused in one line",
    claims=(
        Claim(
            says="Candle and funding files.",
            by=tests(
                "test_fuzz_files.py::test_many_damaged_files_are_taken_by_the_law_or_refused",
                "test_fuzz_files.py::test_many_odd_columns_and_lines_are_taken_by_the_law_or_refused",
            ),
        ),
        Claim(
            says="Answers of an exchange, through the real client.",
            by=tests(
                "test_fuzz_exchange.py::test_many_bent_answers_are_read_by_the_law_or_refused",
                "test_fuzz_exchange.py"
                "::test_many_odd_values_of_any_client_are_read_by_the_law_or_refused",
            ),
        ),
        Claim(
            says="Bundles of the model.",
            by=tests(
                "test_fuzz_bundles.py::test_any_of_many_damages_is_refused",
                "test_fuzz_bundles.py"
                "::test_much_rehashed_nonsense_is_refused_or_speaks_with_numbers",
            ),
        ),
        Claim(
            says="Telegram's updates and answers.",
            by=tests(
                "test_fuzz_telegram.py::test_many_odd_updates_do_not_hold_up_the_owner",
                "test_fuzz_telegram.py::test_many_answers_that_are_none_are_channel_errors",
            ),
        ),
        Claim(
            says="Databases and packs; what is stored stays.",
            by=tests(
                "test_fuzz_database.py::test_many_damaged_pages_are_refused_or_not_needed",
                "test_fuzz_database.py::test_many_mutilated_packs_change_nothing",
            ),
        ),
        Claim(
            says="Arguments of every script, and links to the pages.",
            by=tests(
                "test_fuzz_arguments.py::test_many_odd_arguments_are_done_or_refused",
                "test_fuzz_pages.py::test_any_of_many_links_shows_a_page",
            ),
        ),
    ),
)

UPGRADES = Subject(
    title="Upgrades and first steps",
    claims=(
        Claim(
            says="Every schema there ever was becomes today's with the same rows, and the engine"
            " goes on in it.",
            by=tests(
                "test_migrations.py::test_a_migrated_database_is_one_of_today_with_the_same_rows",
                "test_migrations.py::test_the_engine_goes_on_in_a_migrated_database",
            ),
        ),
        Claim(
            says="Killed before any statement of copy or migration, the next start completes it.",
            by=tests(
                "test_migrations.py"
                "::test_killed_before_any_statement_of_copy_and_migration_the_next_start_completes",
            ),
        ),
        Claim(
            says="An upgrade keeps a proven copy and takes the last decisions again.",
            by=tests(
                "test_upgrade.py::test_the_same_program_takes_the_same_decisions",
                "test_upgrade.py::test_a_decision_that_comes_out_otherwise_is_named_with_the_way_back",
                "test_upgrade.py::test_what_a_model_said_is_said_again",
            ),
            readme="It keeps a copy of the database as it was, proven by putting it back",
        ),
        Claim(
            says="Every command of the README, typed in an empty folder, prints what is shown.",
            by=tests("test_readme.py::test_the_whole_readme"),
        ),
    ),
)
