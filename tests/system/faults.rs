//! One short trial for each family of faults; `make faults` runs them all, with any seed.

use system_tests::fault::Fault;

/// Runs a trial and returns its error as the test's message.
async fn survives(fault: Fault, seed: u64) {
    if let Err(error) = fault.trial(seed).await {
        panic!("{fault:?}, seed {seed}: {error:#}");
    }
}

#[tokio::test]
async fn a_hub_killed_between_commit_and_acknowledgement_loses_and_doubles_nothing() {
    survives(Fault::HubKilled, 3).await;
}

#[tokio::test]
async fn a_hub_killed_while_a_table_changes_loses_and_doubles_nothing() {
    survives(Fault::HubKilled, 8).await;
}

#[tokio::test]
async fn a_hub_killed_after_publishing_or_while_marking_leaves_no_hole_on_the_stream() {
    survives(Fault::HubKilled, 7).await;
    survives(Fault::HubKilledMarking, 1).await;
}

#[tokio::test]
async fn lost_answers_of_commits_double_nothing() {
    survives(Fault::CommitAnswerLost, 1).await;
}

#[tokio::test]
async fn lost_acknowledgements_of_frames_double_nothing_on_the_stream() {
    survives(Fault::PublishAnswerLost, 1).await;
}

#[tokio::test]
async fn a_killed_postgresql_costs_time_only() {
    survives(Fault::PostgresKilled, 1).await;
}

#[tokio::test]
async fn a_wiped_bus_is_filled_again_while_rows_come() {
    survives(Fault::NatsWiped, 1).await;
}

#[tokio::test]
async fn a_bus_without_room_holds_up_no_upload() {
    survives(Fault::NatsFull, 1).await;
}

#[tokio::test]
async fn a_hub_that_stood_still_goes_on() {
    survives(Fault::HubFrozen, 1).await;
}

#[tokio::test]
async fn a_connection_cut_in_a_frame_doubles_nothing_while_the_old_one_drains() {
    survives(Fault::ConnectionCut, 1).await;
}

#[tokio::test]
async fn three_hubs_on_the_same_batteries_keep_order_whichever_dies() {
    survives(Fault::ThreeHubs, 1).await;
}

#[tokio::test]
async fn a_rebuild_beside_two_hubs_ends_with_every_row_once_and_in_order() {
    survives(Fault::Rebuild, 1).await;
}

#[tokio::test]
async fn a_full_disk_of_postgresql_rejects_no_row() {
    survives(Fault::DiskFull, 1).await;
}

#[tokio::test]
async fn statements_broken_off_by_a_timeout_reject_no_row() {
    survives(Fault::StatementTimeout, 1).await;
}

#[tokio::test]
async fn a_client_that_never_reads_costs_only_itself() {
    survives(Fault::DeafClient, 1).await;
}

#[tokio::test]
async fn huge_frames_and_packed_bodies_are_refused_within_bounded_memory() {
    survives(Fault::HugeFrame, 1).await;
    survives(Fault::CompressedBomb, 1).await;
}

#[tokio::test]
async fn a_twin_killed_between_estimates_checkpoint_and_acknowledgement_estimates_the_same() {
    survives(Fault::TwinKilled, 3).await;
    survives(Fault::TwinKilled, 6).await;
}

#[tokio::test]
async fn a_twin_that_takes_over_estimates_the_same() {
    survives(Fault::TwinTakenOver, 1).await;
}

#[tokio::test]
async fn a_twin_that_stood_still_while_another_took_over_changes_nothing() {
    survives(Fault::TwinFrozen, 1).await;
}

#[tokio::test]
async fn a_hub_killed_between_a_correction_and_telling_it_loses_no_recomputation() {
    survives(Fault::HubKilledCorrecting, 1).await;
}

#[tokio::test]
async fn a_twin_killed_as_it_goes_back_leaves_no_estimate_of_a_deleted_row() {
    survives(Fault::TwinKilledGoingBack, 1).await;
}

#[tokio::test]
async fn a_bus_wiped_under_two_twins_changes_no_estimate() {
    survives(Fault::TwinsNatsWiped, 1).await;
}
