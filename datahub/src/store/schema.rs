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
        first_seq -> BigInt,
        holder -> Nullable<Uuid>,
        holder_attempt -> BigInt,
        holder_offset -> BigInt,
    }
}

diesel::table! {
    hub.sessions (id) {
        id -> Uuid,
        battery_id -> BigInt,
        attempt -> BigInt,
        noted_position -> BigInt,
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

diesel::table! {
    hub.signals (battery_id, name) {
        battery_id -> BigInt,
        name -> Text,
        expression -> Text,
        unit -> Nullable<Text>,
    }
}

diesel::table! {
    hub.tables (battery_id, name) {
        battery_id -> BigInt,
        name -> Text,
        sql_name -> Text,
        rows -> BigInt,
    }
}
