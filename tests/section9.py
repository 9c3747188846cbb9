"""The table of PROTOCOL section 9: every attack on the protocol, its outcome, and the tests that hold it.

Each row names at least one test on the simulator and the tests over real sockets; tests/test_section9.py checks that
they exist. A test is named as pytest names it, without parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

ATTACKS = "tests/simulation/test_protocol_attacks.py::"
DISPUTES = "tests/simulation/test_protocol_disputes.py::"
HOSTILE = "tests/simulation/test_hostile_messages.py::"
TABLE = "tests/integration/test_section9.py::"
WIRE = "tests/integration/test_hostile_wire.py::"
MIXED = "tests/simulation/test_mixed_environments.py::"
PARTITIONS = "tests/simulation/test_protocol_partitions.py::"
REJOIN = "tests/simulation/test_rejoin.py::"
BACK = "tests/integration/test_rejoin.py::"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    Args:
        attack, outcome: the specification's words.
        simulator: tests on the simulator.
        sockets: tests between real processes, or of the real transport.
    """

    attack: str
    outcome: str
    simulator: tuple[str, ...]
    sockets: tuple[str, ...]


ROWS = (
    Row(
        "two COMMITs, AGGs, CHECKSUMS or CLOSEs to different peers; a false prefix",
        "dispute, proof, ban, no honest loss",
        simulator=(
            ATTACKS + "test_two_messages_of_a_phase_are_proof",
            ATTACKS + "test_two_closes_are_proof_in_the_next_report",
            ATTACKS + "test_two_messages_of_an_optional_phase_are_proof",
            ATTACKS + "test_a_false_prefix_to_all_is_banned",
            ATTACKS + "test_a_false_prefix_to_some_is_an_equivocation",
        ),
        sockets=(
            TABLE + "test_two_messages_for_one_slot_ban_their_signer",
            TABLE + "test_two_closes_and_a_false_prefix_ban_their_signer",
        ),
    ),
    Row(
        "randomness commitments shown differently to two peers",
        "unequal prefixes: dispute before anyone judges",
        simulator=(ATTACKS + "test_randomness_shown_differently_is_disputed_before_anyone_judges",),
        sockets=(TABLE + "test_two_messages_for_one_slot_ban_their_signer",),
    ),
    Row(
        "a part other than the committed one, or none",
        "complaint; published or removed",
        simulator=(
            ATTACKS + "test_a_wrong_or_missing_part_is_published_or_its_sender_removed",
            ATTACKS + "test_a_part_published_to_some",
            ATTACKS + "test_the_fourth_complaint_about_a_part_costs_both_sides",
        ),
        sockets=(TABLE + "test_a_part_is_published_or_its_sender_removed",),
    ),
    Row(
        "the gradient that one is judged by, withheld (`--recompute-tolerance`)",
        "HAVE bits: removed as withheld, and nobody waits",
        simulator=(MIXED + "test_who_withholds_the_gradient_that_it_is_judged_by_is_gone_and_stops_nobody",),
        sockets=(TABLE + "test_who_withholds_the_gradient_that_it_is_judged_by_is_removed",),
    ),
    Row(
        "a wrong aggregate to all, uncovered",
        "V2 in this step, ban",
        simulator=(ATTACKS + "test_a_wrong_aggregate_to_all_falls_to_v2_in_its_step",),
        sockets=(TABLE + "test_a_wrong_aggregate_falls_in_its_step_and_a_missing_one_is_pulled_or_removed",),
    ),
    Row(
        "covered by its own or an accomplice's lies in s; +-1e30, NaN, inf in s",
        "V0; V3 if large, else the validator at rate p",
        simulator=(
            ATTACKS + "test_a_small_shift_covered_by_lies_falls_to_a_validator",
            ATTACKS + "test_a_large_shift_covered_by_lies_falls_to_v3",
            ATTACKS + "test_an_impossible_checksum_falls_to_v0",
        ),
        sockets=(
            TABLE + "test_impossible_checksums_fall_to_v0",
            TABLE + "test_a_large_covered_shift_falls_to_v3",
            TABLE + "test_a_small_covered_shift_falls_to_a_validator",
        ),
    ),
    Row(
        "an aggregate withheld from all, from all but one, or sent differently",
        "HAVE bits: pulled from who has it, or its aggregator removed; only the committed bytes count",
        simulator=(
            ATTACKS + "test_an_aggregate_is_pulled_or_its_aggregator_removed",
            ATTACKS + "test_accomplices_that_claim_an_aggregate_make_nobody_believe_them",
        ),
        sockets=(TABLE + "test_a_wrong_aggregate_falls_in_its_step_and_a_missing_one_is_pulled_or_removed",),
    ),
    Row(
        "a reveal withheld",
        "removed, new attempt; at most f biased retries",
        simulator=(
            ATTACKS + "test_a_reveal_withheld_ends_in_removal_and_a_new_attempt",
            ATTACKS + "test_biased_retries_cost_an_attacker_each",
        ),
        sockets=(TABLE + "test_a_reveal_withheld_costs_an_attacker_each",),
    ),
    Row(
        "silence in any phase, toward all or some; a message at the last instant to a chosen peer",
        "SUSPECT, forward; f+1 -> gone",
        simulator=(
            ATTACKS + "test_silence_toward_all_is_removed_as_gone",
            ATTACKS + "test_a_close_kept_from_all_leaves_the_value_standing",
            ATTACKS + "test_silence_toward_f_peers_is_healed_by_forwarding",
            ATTACKS + "test_a_message_at_the_last_instant_to_one_splits_nobody",
            ATTACKS + "test_two_attackers_that_take_different_favourites_split_nobody",
        ),
        sockets=(TABLE + "test_silence_is_gone_and_silence_toward_some_is_healed",),
    ),
    Row(
        "CLOSE to one peer only, then every kind of trigger at every instant; a dispute one step late",
        "the certificate wins; same state everywhere",
        simulator=(
            ATTACKS + "test_a_close_to_few_commits_everywhere",
            ATTACKS + "test_a_close_to_one_and_then_a_trigger",
            DISPUTES + "test_a_certified_attempt_is_disputed_with_late_views",
            DISPUTES + "test_a_last_certificate_wins_over_a_dispute_that_others_begin",
        ),
        sockets=(
            TABLE + "test_a_certificate_that_one_peer_alone_holds_wins",
            TABLE + "test_two_closes_and_a_false_prefix_ban_their_signer",
        ),
    ),
    Row(
        "starts of a dispute D apart, views at the last instant of each round",
        "equal unions",
        simulator=(
            DISPUTES + "test_views_at_the_last_instant_of_their_round_make_equal_unions",
            DISPUTES + "test_lies_inside_a_dispute_that_an_accomplice_started",
            DISPUTES + "test_a_premature_view_is_an_equivocation_once_there_is_a_dispute",
        ),
        sockets=(TABLE + "test_views_at_the_last_instant_of_their_round_make_equal_unions",),
    ),
    Row(
        "false accusation, false V1 bits, complaints without cause",
        "accuser banned; edges; at most one honest lost per attacker",
        simulator=(
            DISPUTES + "test_a_false_accusation_bans_the_accuser_in_its_step",
            DISPUTES + "test_a_false_verdict_bans_the_validator",
            DISPUTES + "test_complaints_about_many_break_the_complainer_off",
            DISPUTES + "test_complaints_about_one_cost_at_most_one_honest_peer_each",
        ),
        sockets=(
            TABLE + "test_false_accusers_are_banned_and_causeless_complaints_cut_off",
            TABLE + "test_the_fourth_complaint_of_a_pair_costs_one_honest_peer_at_most",
        ),
    ),
    Row(
        "a validator silent, or saying *correct* for its accomplice; one removed before its verdict",
        "ban; a later draw; the next in the permutation",
        simulator=(
            DISPUTES + "test_a_silent_validator_goes_at_its_first_turn",
            DISPUTES + "test_an_accomplice_that_looks_away_only_delays",
            DISPUTES + "test_the_verdict_of_a_removed_validator_passes_to_the_next",
        ),
        sockets=(
            TABLE + "test_silent_validators_go_at_their_first_turn",
            TABLE + "test_a_validator_that_spares_its_accomplice_only_delays",
        ),
    ),
    Row(
        "a commitment copied; messages replayed from another step, attempt, run or roster",
        "useless; dropped by slot, counted",
        simulator=(
            DISPUTES + "test_a_copied_commitment_is_useless",
            DISPUTES + "test_replays_are_dropped_by_slot_and_counted",
        ),
        sockets=(TABLE + "test_copies_and_replays_are_useless",),
    ),
    Row(
        "malformed, oversized, non-finite, wrongly shaped, unsigned; a stranger; spoofed bulk",
        "rejected before it costs memory; signed ones are evidence; the process survives",
        simulator=(
            DISPUTES + "test_what_is_no_message_is_dropped_and_proves_nothing",
            DISPUTES + "test_a_signed_message_of_the_wrong_shape_is_evidence",
            DISPUTES + "test_entries_that_nobody_can_compute_with_are_proof_once_published",
            HOSTILE + "test_an_unsigned_message_is_dropped",
            HOSTILE + "test_damaged_bytes_have_no_effect_but_on_a_counter",
            HOSTILE + "test_no_tensor_stops_a_process",
        ),
        sockets=(
            TABLE + "test_what_no_honest_peer_sends_is_evidence_or_dropped",
            WIRE + "test_a_member_that_attacks_with_everything_is_all_that_is_removed",
            WIRE + "test_strangers_without_a_key_change_nothing",
        ),
    ),
    Row(
        "partitions 3/3, 4/2, one-way",
        "no bans; the side without quorum halts with its state; `gone` peers rejoin",
        simulator=(
            PARTITIONS + "test_a_partition_into_halves_halts_both",
            PARTITIONS + "test_a_partition_four_to_two_goes_on_without_the_two",
            PARTITIONS + "test_peers_that_are_heard_by_nobody_are_gone",
            PARTITIONS + "test_peers_that_hear_nobody_are_gone",
            PARTITIONS + "test_single_links_are_bridged_by_the_others",
            REJOIN + "test_two_peers_come_out_of_a_partition_and_are_back",
        ),
        sockets=(
            BACK + "test_a_killed_process_is_gone_and_back_after_its_probation",
            TABLE + "test_a_partition_into_halves_halts_both_sides",
            TABLE + "test_a_partition_four_to_two_goes_on_without_the_two",
            TABLE + "test_peers_that_nobody_hears_are_gone",
        ),
    ),
    Row(
        "crash between signing and sending; crash and restart",
        "no self-conviction; gone, probation, back",
        simulator=(
            DISPUTES + "test_a_crashed_node_is_gone",
            DISPUTES + "test_a_crash_between_signing_and_sending_convicts_nobody",
            REJOIN + "test_a_crashed_peer_is_gone_serves_probation_and_is_back",
            REJOIN + "test_a_peer_comes_back_once",
            REJOIN + "test_a_wrong_gradient_on_probation_ends_it_for_ever",
            REJOIN + "test_two_joins_for_one_step_are_proof",
            REJOIN + "test_a_flood_of_questions_is_counted_and_lets_nobody_in_sooner",
            REJOIN + "test_an_attack_after_the_return_is_found_as_any_other",
            REJOIN + "test_whoever_falls_silent_again_stays_gone",
        ),
        sockets=(
            TABLE + "test_a_crashed_and_a_killed_process_are_gone",
            TABLE + "test_whoever_comes_back_with_a_wrong_gradient_is_banned",
            BACK + "test_a_killed_process_is_gone_and_back_after_its_probation",
        ),
    ),
)
