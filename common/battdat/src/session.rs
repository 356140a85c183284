//! How an upload of a file is recognised, whoever sends it.

use rovi_common::name::BatteryName;
use uuid::Uuid;

/// Namespace of upload sessions, a random constant.
const SESSIONS: Uuid = Uuid::from_u128(0x8f2c_1b54_60de_4f0a_9c37_d5a1_4e92_7b63);

/// Derives the session of an upload, so that the same rows sent again are recognised.
///
/// `fingerprint` is that of the table's content, which a file keeps when it is moved or renamed.
pub fn session(battery: &BatteryName, prefix: Option<&str>, fingerprint: &[u8; 32]) -> Uuid {
    // No name holds a NUL, so different parts never join to the same text.
    let mut text = Vec::new();
    text.extend_from_slice(battery.as_str().as_bytes());
    text.push(0);
    text.extend_from_slice(prefix.unwrap_or_default().as_bytes());
    text.push(0);
    text.extend_from_slice(fingerprint);
    Uuid::new_v5(&SESSIONS, &text)
}
