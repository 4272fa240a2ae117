//! From the claims of a token to a user: rules, mappings, and the expressions of both, compiled.
//!
//! Pure. The claims are believed already: the signature is verified before. An expression is evaluated in few steps, because a token is judged on a
//! thread that serves requests.
//! <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration>

use std::sync::Arc;

use serde_json::{Map, Value as Json, json};
use trireme_api::cel::{Bindings, Evaluation, Expression, Fields, Names, Type, Value, Variables, Wanted, values};

use super::settings::{ClaimRule, ExpressionRule, Settings, Source};
use crate::user::UserInfo;

/// The steps of all expressions about one token.
const STEPS: usize = 100_000;
/// The largest value of an expression, in nodes and bytes.
const VALUE_ROOM: usize = 64 * 1024;

/// How claims become a user.
#[derive(Debug)]
pub struct Mapping {
    claim_rules: Vec<Rule>,
    username: Way,
    groups: Option<Way>,
    uid: Option<Way>,
    extra: Vec<(String, Expression)>,
    user_rules: Vec<Condition>,
    none: Variables,
}

#[derive(Debug)]
enum Rule {
    Value(String, String),
    True(Condition),
}

#[derive(Debug)]
struct Condition {
    expression: Expression,
    message: String,
}

#[derive(Debug)]
enum Way {
    Claim(String, String),
    Expression(Expression),
}

/// The variables of expressions: `claims` or `user`.
struct Variable {
    name: &'static str,
    of: Type,
    value: Value,
}

/// The type of `user`.
#[derive(Debug)]
struct UserFields;

// === impl Mapping ===

impl Mapping {
    /// Compiles the rules and mappings of a provider.
    ///
    /// # Errors
    /// Which expression does not compile, and why; in one line.
    pub fn compile(settings: &Settings) -> Result<Mapping, String> {
        let rule = |(at, rule): (usize, &ClaimRule)| match rule {
            ClaimRule::Value(claim, value) => Ok(Rule::Value(claim.clone(), value.clone())),
            ClaimRule::Expression(rule) => {
                condition(rule, &claims(Value::Null)).map(Rule::True).map_err(|why| format!("claimValidationRules[{at}].expression: {why}"))
            }
        };
        let way = |source: &Source, wanted: Wanted, field: &str| match source {
            Source::Claim(claim, prefix) => Ok(Way::Claim(claim.clone(), prefix.clone())),
            Source::Expression(text) => compile(text, wanted, &claims(Value::Null))
                .map(Way::Expression)
                .map_err(|why| format!("claimMappings.{field}.expression: {why}")),
        };
        let extra = |(at, (key, text)): (usize, &(String, String))| {
            let compiled = compile(text, Wanted::Any, &claims(Value::Null));
            compiled.map(|one| (key.clone(), one)).map_err(|why| format!("claimMappings.extra[{at}].valueExpression: {why}"))
        };
        let user_rule = |(at, rule): (usize, &ExpressionRule)| {
            condition(rule, &user(Value::Null)).map_err(|why| format!("userValidationRules[{at}].expression: {why}"))
        };
        Ok(Mapping {
            claim_rules: settings.claim_rules.iter().enumerate().map(rule).collect::<Result<_, _>>()?,
            username: way(&settings.username, Wanted::Text, "username")?,
            groups: settings.groups.as_ref().map(|source| way(source, Wanted::Any, "groups")).transpose()?,
            uid: settings.uid.as_ref().map(|source| way(source, Wanted::Text, "uid")).transpose()?,
            extra: settings.extra.iter().enumerate().map(extra).collect::<Result<_, _>>()?,
            user_rules: settings.user_rules.iter().enumerate().map(user_rule).collect::<Result<_, _>>()?,
            none: Variables::default(),
        })
    }

    /// The user of a token with these claims.
    ///
    /// # Errors
    /// Why there is none.
    pub fn user(&self, given: &Map<String, Json>) -> Result<UserInfo, String> {
        let variable = claims(values::from_json(&Json::Object(given.clone())));
        let mut evaluation = Evaluation::new(&variable, &self.none, STEPS);
        for rule in &self.claim_rules {
            match rule {
                Rule::Value(claim, wanted) if given.get(claim).and_then(Json::as_str) != Some(wanted) => {
                    return Err(format!("oidc: required claim {claim} value does not match"));
                }
                Rule::Value(..) => {}
                Rule::True(condition) => condition.check(&mut evaluation)?,
            }
        }
        let mut made = UserInfo { name: self.name(given, &mut evaluation)?, ..UserInfo::default() };
        made.groups = match &self.groups {
            Some(Way::Claim(claim, prefix)) => groups(given.get(claim), prefix)?,
            Some(Way::Expression(expression)) => texts(expression, &mut evaluation)?,
            None => Vec::new(),
        };
        made.uid = match &self.uid {
            Some(Way::Claim(claim, prefix)) => {
                let uid = given.get(claim).and_then(Json::as_str);
                format!(
                    "{prefix}{}",
                    uid.ok_or_else(|| format!("oidc: the claim {claim:?} with the user's uid is not there, or is no text"))?
                )
            }
            Some(Way::Expression(expression)) => text(expression, &mut evaluation)?,
            None => String::new(),
        };
        for (key, expression) in &self.extra {
            let found = texts(expression, &mut evaluation)?;
            if !found.is_empty() {
                made.extra.insert(key.clone(), found);
            }
        }
        self.check_user(&made)?;
        Ok(made)
    }

    fn name<'a>(&'a self, given: &Map<String, Json>, evaluation: &mut Evaluation<'a>) -> Result<String, String> {
        let (claim, prefix) = match &self.username {
            Way::Claim(claim, prefix) => (claim, prefix),
            Way::Expression(expression) => {
                let name = text(expression, evaluation)?;
                return if name.is_empty() { Err("oidc: the user's name is empty".to_owned()) } else { Ok(name) };
            }
        };
        let name = given.get(claim).and_then(Json::as_str).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| format!("oidc: the claim {claim:?} with the user's name is not there, or is no text"))?;
        if claim == "email" && given.get("email_verified").is_some_and(|verified| verified != &Json::Bool(true)) {
            return Err("oidc: email not verified".to_owned());
        }
        Ok(format!("{prefix}{name}"))
    }

    fn check_user(&self, made: &UserInfo) -> Result<(), String> {
        if self.user_rules.is_empty() {
            return Ok(());
        }
        let shown = json!({"username": made.name, "uid": made.uid, "groups": made.groups, "extra": made.extra});
        let variable = user(values::from_json(&shown));
        let mut evaluation = Evaluation::new(&variable, &self.none, STEPS);
        self.user_rules.iter().try_for_each(|rule| rule.check(&mut evaluation))
    }
}

/// The groups in a claim: a text or a list.
fn groups(claim: Option<&Json>, prefix: &str) -> Result<Vec<String>, String> {
    match claim {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::String(group)) => Ok(vec![format!("{prefix}{group}")]),
        Some(Json::Array(groups)) => {
            let groups = groups.iter().map(|group| group.as_str().map(|group| format!("{prefix}{group}")));
            groups.collect::<Option<_>>().ok_or_else(|| "oidc: a group is no text".to_owned())
        }
        Some(_) => Err("oidc: the claim with the user's groups is no list of texts".to_owned()),
    }
}

fn compile(text: &str, wanted: Wanted, names: &Variable) -> Result<Expression, String> {
    Expression::compile(text, wanted, names, &Variables::default()).map_err(|why| why.replace('\n', " "))
}

fn condition(rule: &ExpressionRule, names: &Variable) -> Result<Condition, String> {
    Ok(Condition { expression: compile(&rule.expression, Wanted::Bool, names)?, message: rule.message.clone() })
}

fn json_of<'a>(expression: &'a Expression, evaluation: &mut Evaluation<'a>) -> Result<Json, String> {
    let failed = |fault: trireme_api::cel::Fault| format!("oidc: {fault}");
    let value = expression.evaluate(evaluation).map_err(failed)?;
    values::to_json(&value, &mut { VALUE_ROOM }).map_err(failed)
}

fn text<'a>(expression: &'a Expression, evaluation: &mut Evaluation<'a>) -> Result<String, String> {
    match json_of(expression, evaluation)? {
        Json::String(text) => Ok(text),
        _ => Err(format!("oidc: expression '{}' gives no text", expression.text())),
    }
}

/// A text or a list of texts; null and empty texts are none.
fn texts<'a>(expression: &'a Expression, evaluation: &mut Evaluation<'a>) -> Result<Vec<String>, String> {
    let wrong = || format!("oidc: expression '{}' gives neither a text nor a list of texts", expression.text());
    let all = match json_of(expression, evaluation)? {
        Json::Null => Vec::new(),
        Json::String(text) => vec![text],
        Json::Array(all) => {
            let all = all.into_iter().map(|one| if let Json::String(text) = one { Some(text) } else { None });
            all.collect::<Option<_>>().ok_or_else(wrong)?
        }
        _ => return Err(wrong()),
    };
    Ok(all.into_iter().filter(|text| !text.is_empty()).collect())
}

// === impl Condition ===

impl Condition {
    fn check<'a>(&'a self, evaluation: &mut Evaluation<'a>) -> Result<(), String> {
        match self.expression.evaluate(evaluation) {
            Ok(Value::Bool(true)) => Ok(()),
            Ok(_) if self.message.is_empty() => Err(format!("oidc: validation expression '{}' failed", self.expression.text())),
            Ok(_) => Err(format!("oidc: validation expression '{}' failed: {}", self.expression.text(), self.message)),
            Err(fault) => Err(format!("oidc: {fault}")),
        }
    }
}

// === impl Variable ===

fn claims(value: Value) -> Variable {
    Variable { name: "claims", of: Type::map(Type::String, Type::Dyn), value }
}

fn user(value: Value) -> Variable {
    Variable { name: "user", of: Type::Object(Arc::new(UserFields)), value }
}

impl Names for Variable {
    fn get(&self, name: &str) -> Option<Type> {
        (name == self.name).then(|| self.of.clone())
    }
}

impl Bindings for Variable {
    fn get(&self, name: &str) -> Option<Value> {
        (name == self.name).then(|| self.value.clone())
    }
}

impl Fields for UserFields {
    fn name(&self) -> String {
        "kubernetes.UserInfo".to_owned()
    }

    fn field(&self, name: &str) -> Option<Type> {
        match name {
            "username" | "uid" => Some(Type::String),
            "groups" => Some(Type::list(Type::String)),
            "extra" => Some(Type::map(Type::String, Type::list(Type::String))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Authority, OidcOptions};
    use super::*;

    fn settings() -> Settings {
        let base: Settings = OidcOptions::new("https://idp".to_owned(), "k".to_owned()).into();
        let rule = |expression: &str, message: &str| ExpressionRule { expression: expression.to_owned(), message: message.to_owned() };
        Settings {
            authority: Authority::System,
            claim_rules: vec![ClaimRule::Expression(rule("claims.exp - claims.nbf <= 86400", "a day at most"))],
            username: Source::Expression("'idp:' + claims.email.split('@')[0]".to_owned()),
            groups: Some(Source::Expression("claims.roles.map(role, 'idp:' + role)".to_owned())),
            uid: Some(Source::Claim("sub".to_owned(), String::new())),
            extra: vec![("example.com/tenant".to_owned(), "has(claims.tenant) ? claims.tenant : ''".to_owned())],
            user_rules: vec![rule("!user.username.contains('root') && user.groups.all(group, !group.startsWith('system:'))", "")],
            ..base
        }
    }

    fn given(changes: &[(&str, Json)]) -> Map<String, Json> {
        let claims = json!({"email": "jane@example.com", "roles": ["a", "b"], "sub": "7", "tenant": "t", "nbf": 100, "exp": 200});
        let mut claims = claims.as_object().unwrap().clone();
        claims.extend(changes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        claims
    }

    #[test]
    fn expressions_make_a_user_of_claims() {
        let mapping = Mapping::compile(&settings()).unwrap();
        let user = mapping.user(&given(&[])).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str(), user.groups), ("idp:jane", "7", vec!["idp:a".to_owned(), "idp:b".to_owned()]));
        assert_eq!(user.extra["example.com/tenant"], ["t"]);
        assert!(mapping.user(&given(&[("tenant", json!(""))])).unwrap().extra.is_empty(), "what is empty is not there");
        for (changes, why) in [
            (&[("exp", json!(900_000))][..], "a day at most"),
            (&[("email", json!("root@example.com"))], "validation expression"),
            (&[("email", json!(7))], "oidc:"),
            (&[("email", json!("@"))], "neverfail"),
            (&[("roles", json!([1]))], "oidc:"),
            (&[("roles", Json::Null)], "oidc:"),
            (&[("sub", Json::Null)], "uid"),
        ] {
            let outcome = mapping.user(&given(changes));
            match why {
                "neverfail" => assert_eq!(outcome.unwrap().name, "idp:"),
                _ => assert!(outcome.clone().is_err_and(|error| error.contains(why)), "{changes:?}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn an_expression_that_does_not_compile_is_named() {
        let with = |change: fn(&mut Settings)| {
            let mut settings = settings();
            change(&mut settings);
            Mapping::compile(&settings).unwrap_err()
        };
        for (error, field) in [
            (with(|all| all.username = Source::Expression("claims.".to_owned())), "claimMappings.username.expression"),
            (with(|all| all.username = Source::Expression("1 + 1".to_owned())), "must evaluate to string"),
            (with(|all| all.user_rules[0].expression = "claims.sub == ''".to_owned()), "userValidationRules[0].expression"),
            (with(|all| all.extra[0].1 = "user.username".to_owned()), "claimMappings.extra[0].valueExpression"),
        ] {
            assert!(error.contains(field) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn an_expression_is_bounded() {
        let mut settings = settings();
        settings.username = Source::Expression(
            "claims.roles.map(a, claims.roles.map(b, claims.roles.map(c, a + b + c))).size() > 0 ? 'x' : 'y'".to_owned(),
        );
        let roles: Vec<Json> = (0..1000).map(|at| json!(at.to_string())).collect();
        let outcome = Mapping::compile(&settings).unwrap().user(&given(&[("roles", json!(roles))]));
        assert!(outcome.is_err(), "{outcome:?}");
    }
}
