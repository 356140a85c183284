//! The hub's own tables as diesel knows them; `migrations/` makes them.

diesel::table! {
    hub.batteries (id) {
        id -> BigInt,
        name -> Text,
        title -> Nullable<Text>,
        epoch -> BigInt,
        last_seq -> BigInt,
        relayed_seq -> BigInt,
        segment -> Integer,
        latest_test_time -> Nullable<Double>,
        form -> BigInt,
    }
}

diesel::table! {
    hub.metadata (battery_id) {
        battery_id -> BigInt,
        body -> Json,
    }
}

diesel::table! {
    hub.sessions (id) {
        id -> Uuid,
        battery_id -> BigInt,
        attempt -> BigInt,
        position -> BigInt,
        body -> Nullable<Binary>,
    }
}

diesel::table! {
    hub.table_changes (id) {
        id -> BigInt,
        battery_id -> BigInt,
        epoch -> BigInt,
        after_seq -> BigInt,
        change -> Text,
    }
}

diesel::joinable!(metadata -> batteries (battery_id));
diesel::allow_tables_to_appear_in_same_query!(batteries, metadata);
