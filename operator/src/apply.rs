//! Writing objects: server-side apply only when something differs, plain creates for what is claimed or secret.
//!
//! The edge to the API server that everything else goes through. What is there is read first; an apply that would change
//! nothing is not sent, so a reconcile that has nothing to do writes nothing (invariant I9).

use std::fmt::Debug;

use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The operator's field manager.
pub const MANAGER: &str = "liaison-operator";
/// Digest of what was applied: without it a field that is no longer wanted would not be noticed.
const APPLIED: &str = "federation.csc-scc.gc.ca/applied";

/// Parameters of every server-side apply.
pub fn params() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

/// Parameters of every merge patch.
pub fn merging() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() }
}

/// Applies an object if it is missing or differs; returns what is there now.
pub async fn ensure<K>(api: &Api<K>, mut desired: K) -> Result<K, kube::Error>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
{
    let digest = hex::encode(Sha256::digest(json(&desired)?.to_string()));
    desired.annotations_mut().insert(APPLIED.to_owned(), digest);
    let wanted = json(&desired)?;
    let name = desired.name_any();
    if let Some(live) = api.get_opt(&name).await?
        && contains(&json(&live)?, &wanted)
    {
        return Ok(live);
    }
    api.patch(&name, &params(), &Patch::Apply(&wanted)).await
}

/// Creates an object unless one of that name is there; returns what is there and whether it was made now.
pub async fn create_once<K>(api: &Api<K>, object: &K) -> Result<(K, bool), kube::Error>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
{
    match api.create(&PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() }, object).await {
        Ok(made) => Ok((made, true)),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok((api.get(&object.name_any()).await?, false)),
        Err(error) => Err(error),
    }
}

/// Deletes an object if it is there; true when it is gone. With `wait_for_children`, it goes after what it owns.
pub async fn ensure_gone<K>(api: &Api<K>, name: &str, wait_for_children: bool) -> Result<bool, kube::Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let Some(live) = api.get_opt(name).await? else { return Ok(true) };
    if live.meta().deletion_timestamp.is_some() {
        return Ok(false);
    }
    let policy = if wait_for_children { PropagationPolicy::Foreground } else { PropagationPolicy::Background };
    let params = DeleteParams { propagation_policy: Some(policy), ..DeleteParams::default() };
    match api.delete(name, &params).await {
        Ok(_) if !wait_for_children => Ok(true),
        Ok(_) => Ok(api.get_opt(name).await?.is_none()),
        Err(error) if is_gone(&error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether the object was not there.
pub fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

/// Whether the object is beyond reach: not there, or in a namespace whose RoleBindings are deleted already.
pub fn is_out_of_reach(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found() || status.is_forbidden())
}

fn json<K: Serialize>(object: &K) -> Result<Value, kube::Error> {
    serde_json::to_value(object).map_err(kube::Error::SerdeError)
}

/// Whether all that is wanted is in `live`: the API server adds defaults, and nothing else counts.
pub fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| match live.get(key) {
            Some(live) => contains(live, wanted),
            None => {
                wanted.as_object().is_some_and(serde_json::Map::is_empty)
                    || wanted.as_array().is_some_and(Vec::is_empty)
            }
        }),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| contains(live, wanted))
        }
        (live, wanted) => live == wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_of_the_server_are_no_difference() {
        let live = json!({"a": 1, "b": {"c": [{"x": 1, "y": 2}]}, "defaulted": true});
        assert!(contains(&live, &json!({"a": 1, "b": {"c": [{"x": 1}]}, "none": {}})));
        assert!(!contains(&live, &json!({"b": {"c": [{"x": 2}]}})));
        assert!(!contains(&live, &json!({"b": {"c": []}})));
        assert!(!contains(&live, &json!({"missing": 1})));
    }
}
