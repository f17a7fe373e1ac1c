//! Compare before write: does an object already say all that we want it to say?

use serde::Serialize;
use serde_json::Value;

/// True if `found` lacks or contradicts anything in `wanted`. What others added to `found` is theirs.
///
/// Lists must have the same length and agree item by item.
pub fn differs(wanted: &impl Serialize, found: &impl Serialize) -> bool {
    match (serde_json::to_value(wanted), serde_json::to_value(found)) {
        (Ok(wanted), Ok(found)) => !contains(&found, &wanted),
        _ => true,
    }
}

fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, value)| found.get(key).is_some_and(|found| contains(found, value))),
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| contains(found, wanted))
        }
        _ => found == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_the_api_server_fills_in_is_no_difference() {
        let wanted = json!({"spec": {"ports": [{"port": 9001}]}});
        let found = json!({"spec": {"ports": [{"port": 9001, "protocol": "TCP"}], "clusterIP": "198.19.0.9"}});
        assert!(!differs(&wanted, &found));
    }

    #[test]
    fn a_changed_value_or_another_list_item_is_a_difference() {
        let wanted = json!({"spec": {"ports": [{"port": 9001}]}});
        assert!(differs(&wanted, &json!({"spec": {"ports": [{"port": 9002}]}})));
        assert!(differs(
            &wanted,
            &json!({"spec": {"ports": [{"port": 9001}, {"port": 1}]}})
        ));
        assert!(differs(&wanted, &json!({"spec": {}})));
    }
}
