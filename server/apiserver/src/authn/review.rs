//! TokenReview and SelfSubjectReview of `authentication.k8s.io/v1`.
//!
//! Answers to <https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/>.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use trireme_api::{meta, status::Status};

use super::Authenticator;
use crate::user::{GROUP_AUTHENTICATED, UserInfo};

/// Judges the posted token and gives the review back with its status.
pub async fn token(authenticator: &Authenticator, mut review: Value, now: Timestamp) -> Result<Value, Box<Status>> {
    let token = meta::str_at(&review, &["spec", "token"]);
    if token.is_empty() {
        return Err(Box::new(Status::bad_request("token is required for TokenReview in authentication")));
    }
    let audiences: Vec<String> =
        meta::list_at(&review, &["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let status = match authenticator.judge_token(token, &audiences, now).await {
        Ok(mut found) => {
            found.user.groups.push(GROUP_AUTHENTICATED.to_owned());
            json!({"authenticated": true, "user": user_value(&found.user), "audiences": found.audiences})
        }
        Err(reason) => json!({"user": {}, "error": reason}),
    };
    review["status"] = status;
    Ok(review)
}

/// Tells callers their own identity.
pub fn own(user: &UserInfo, mut review: Value, now: Timestamp) -> Value {
    meta::set_creation_timestamp(&mut review, &trireme_api::time::format(now));
    review["status"] = json!({"userInfo": user_value(user)});
    review
}

/// `authentication.k8s.io/v1.UserInfo`.
pub fn user_value(user: &UserInfo) -> Value {
    let mut value = Map::new();
    value.insert("username".into(), Value::from(user.name.clone()));
    if !user.uid.is_empty() {
        value.insert("uid".into(), Value::from(user.uid.clone()));
    }
    if !user.groups.is_empty() {
        value.insert("groups".into(), Value::from(user.groups.clone()));
    }
    if !user.extra.is_empty() {
        value.insert("extra".into(), json!(user.extra));
    }
    Value::Object(value)
}
