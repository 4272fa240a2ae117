use futures::FutureExt;
use serde_json::{Value as Json, json};
use trireme_api::gvk::{GroupVersionKind, GroupVersionResource};

use super::*;
use crate::admission::request::{AdmissionRequest, Operation};
use crate::authz::Authorizer;
use crate::authz::tests::FakeReader;
use crate::user::UserInfo;

fn request() -> AdmissionRequest {
    let kind = GroupVersionKind::new("apps", "v1", "Deployment");
    let resource = GroupVersionResource::new("apps", "v1", "deployments");
    let mut request = AdmissionRequest::new(Operation::Update, kind, resource, UserInfo::new("ann", &["dev"]));
    (request.namespace, request.name) = ("default".to_owned(), "web".to_owned());
    request.old_object = Some(std::sync::Arc::new(json!({"spec": {"replicas": 1}})));
    request.set_object(json!({
        "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web", "tier": "front"}},
        "spec": {"replicas": 3, "half": 0.5, "big": 5_000_000_000_u64, "containers": [
            {"name": "a", "image": "x/a:1", "ports": [80]}, {"name": "b", "image": "y/b"}]}
    }));
    request
}

fn inputs() -> Inputs {
    let namespace = json!({"metadata": {"name": "default", "labels": {"env": "prod"}}, "spec": {}, "status": {"phase": "Active"}});
    let params = json!({"max": 5, "allowed": ["a", "b"]});
    let authorizer = Authorizer::new(std::sync::Arc::new(FakeReader::with_defaults()));
    let inputs = Inputs::new(&request(), "v1", Some(&namespace)).now_or_never().unwrap().unwrap();
    inputs.with_params(Some(&params)).with_authorizer(&authorizer, &request())
}

fn declared() -> Declared {
    Declared { patches: true, ..Declared::new(true, true) }
}

/// The value as JSON, or what is wrong.
fn evaluated(text: &str) -> Result<Json, String> {
    let variables = Variables::default();
    let expression = Expression::compile(text, Wanted::Any, &declared(), &variables)?;
    let inputs = inputs();
    let mut evaluation = Evaluation::new(&inputs, &variables, POLICY_STEPS);
    let value = expression.evaluate(&mut evaluation).map_err(|fault| fault.to_string())?;
    values::to_json(&value, &mut 100_000).map_err(|fault| fault.to_string())
}

#[test]
fn expressions_that_hold() {
    for text in [
        // The language.
        "true && !false",
        "!!true",
        "1 + 2 * 3 == 7 && (1 + 2) * 3 == 9 && 7 % 4 == 3 && -7 / 2 == -3",
        "- -1 == 1 && -9223372036854775808 < 0",
        "0x10 == 16 && 1u == 1 && 1.5e3 == 1500.0 && 1 < 1.5 && 2u > 1",
        "'a' + \"b\" == 'ab' && r'\\d' == '\\\\d' && '''x\ny''' == 'x\\ny' && '\\u00e9' == 'é' && b'\\xff' != b''",
        "size('é') == 1 && 'é'.size() == 1 && [1, 2].size() == 2 && {'a': 1}.size() == 1",
        "true ? true : 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "!(1 / 0 == 1 && false)",
        "2 in [1, 2] && 'app' in object.metadata.labels && !('x' in object.metadata.labels)",
        "[1, 2] + [3] == [1, 2, 3] && {'a': [1]} == {'a': [1]} && [1] != [2] && 1 != 2",
        "null == null && object != null && object.spec != null",
        "type(1) == int && type('a') == string && type(null) == null_type && dyn(1) == 1",
        "int('7') == 7 && string(7) == '7' && double('1.5') == 1.5 && uint(3) == 3u && bool('true') && string(true) == 'true'",
        "duration('1h') > duration('59m') && timestamp('2024-01-01T00:00:00Z').getFullYear() == 2024",
        "timestamp('2024-01-01T01:00:00Z') - timestamp('2024-01-01T00:00:00Z') == duration('1h')",
        // Fields.
        "object.spec.replicas == 3 && oldObject.spec.replicas == 1 && object.spec.big == 5000000000 && object.spec.half < 1",
        "has(object.spec.replicas) && !has(object.spec.paused) && has(object.metadata.labels.app)",
        "object.metadata.labels['app'] == 'web' && object.spec.containers[0].name == 'a' && object['spec'].replicas == 3",
        "object.metadata.namespace == 'default' && object.kind == 'Deployment' && object.apiVersion == 'apps/v1'",
        "object.metadata.?annotations[?'x'].orValue('none') == 'none' && object.?spec.?replicas.value() == 3",
        "object.spec.?paused.hasValue() == false && optional.of(1).or(optional.of(2)).value() == 1",
        "object.spec.?replicas.optMap(r, r * 2).orValue(0) == 6 && optional.none().optMap(r, r).hasValue() == false",
        "[1, ?optional.none(), ?optional.of(2)] == [1, 2] && {?'a': optional.none()} == {}",
        "request.operation == 'UPDATE' && request.userInfo.username == 'ann' && 'dev' in request.userInfo.groups",
        "request.kind.kind == 'Deployment' && request.resource.resource == 'deployments' && request.namespace == 'default'",
        "namespaceObject.metadata.labels.env == 'prod' && namespaceObject.status.phase == 'Active'",
        "params.max >= object.spec.replicas && object.spec.containers.all(c, c.name in params.allowed)",
        // Macros.
        "object.spec.containers.all(c, c.image.contains('/'))",
        "object.spec.containers.exists(c, c.name == 'b') && object.spec.containers.exists_one(c, c.name == 'b')",
        "object.spec.containers.map(c, c.name) == ['a', 'b'] && object.spec.containers.filter(c, has(c.ports)).size() == 1",
        "object.spec.containers.map(c, has(c.ports), c.name) == ['a'] && object.metadata.labels.map(k, k) == ['app', 'tier']",
        "object.metadata.labels.all(k, v, size(k) > 2 && size(v) > 2) && [3, 4].exists(i, v, i == 1 && v == 4)",
        "[1, 2].transformList(i, v, i + v) == [1, 3] && {'a': 1}.transformMap(k, v, v + 1) == {'a': 2}",
        "[[1, 2], [3]].all(l, l.all(x, x > 0)) && [0, 1].exists(x, 1 / x == 1)",
        // Libraries.
        "'Abc'.lowerAscii() == 'abc' && 'a,b'.split(',') == ['a', 'b'] && ['a', 'b'].join('-') == 'a-b' && ' x '.trim() == 'x'",
        "'hello'.substring(1, 3) == 'el' && 'hello'.indexOf('l') == 2 && 'hello'.replace('l', 'L') == 'heLLo'",
        "'%s has %d'.format(['a', 3]) == 'a has 3' && 'abc'.matches('^a.c$') && 'a1b22'.findAll('[0-9]+') == ['1', '22']",
        "quantity('1Gi').isGreaterThan(quantity('500Mi')) && quantity('1').add(quantity('2')).compareTo(quantity('3')) == 0",
        "semver('1.2.3').isLessThan(semver('1.3.0')) && isQuantity('x') == false && isURL('https://a/b')",
        "url('https://a:80/b').getHost() == 'a:80' && ip('10.0.0.1').family() == 4 && cidr('10.0.0.0/8').containsIP('10.1.1.1')",
        "ip('::1').string() == '::1' && ip.isCanonical('127.0.0.1') && isIP('1.2.3.4') && !isIP('x')",
        "sets.contains([1, 2], [1]) && sets.intersects([1], [1, 3]) && [3, 1].max() == 3 && [1, 2].sum() == 3 && [1, 2].isSorted()",
        "!format.dns1123Label().validate('abc').hasValue() && format.dns1123Label().validate('A_').hasValue()",
        "jsonpatch.escapeKey('a/b~c') == 'a~1b~0c' && base64.decode(base64.encode(b'x')) == b'x'",
        // The authorizer: ann has no permission.
        "!authorizer.group('').resource('pods').namespace('default').check('create').allowed()",
        "authorizer.serviceAccount('kube-system', 'x').group('').resource('pods').check('get').allowed() == false",
        "!authorizer.requestResource.check('delete').allowed() && authorizer.path('/healthz').check('get').allowed() in [true, false]",
        // Structs.
        "Object{spec: Object.spec{replicas: 4}}.spec.replicas == 4 && has(Object{metadata: 1}.metadata)",
        "JSONPatch{op: 'add', path: '/a', value: 1}.op == 'add'",
    ] {
        assert_eq!(evaluated(text), Ok(Json::Bool(true)), "{text}");
    }
}

#[test]
fn errors_read_as_upstreams_do() {
    for (text, part) in [
        ("object.spec.nothing == 1", "expression 'object.spec.nothing == 1' resulted in error: no such key: nothing"),
        ("object.spec.containers[7].name", "index out of bounds: 7"),
        ("object.metadata.labels['x']", "no such key: x"),
        ("1 / (object.spec.replicas - 3)", "division by zero"),
        ("9223372036854775807 + object.spec.replicas", "integer overflow"),
        ("object.spec.replicas + object.metadata.name", "no such overload"),
        ("object.spec.replicas && true", "no such overload"),
        ("object.spec.?paused.value()", "optional.none() dereference"),
        ("quantity('x').sign() == 1", "quantity"),
        ("object.metadata.name.matches(object.metadata.name + '(')", "error parsing regexp"),
        ("'%.999999f'.format([1.0])", "precision"),
        ("{'a': 1, object.spec.containers[0].name: 2}", "Failed with repeated key a"),
        ("authorizer.group('').resource('')", "resource must not be empty"),
    ] {
        let error = evaluated(text).unwrap_err();
        assert!(error.contains(part) && error.starts_with("expression '"), "{text}: {error}");
    }
}

#[test]
fn what_cannot_be_evaluated_is_refused_before() {
    for (text, part) in [
        ("... [] bad expression", "compilation failed: ERROR: <input>:1:2: Syntax error: mismatched input '.' expecting IDENTIFIER"),
        ("1 +", "Syntax error: mismatched input <EOF>"),
        ("a.b == 1", "undeclared reference to 'a' (in container '')"),
        ("object.nothing()", "undeclared reference to 'nothing' (in container '')"),
        ("max(1, 2)", "found no matching overload for 'max' applied to '(int, int)'"),
        ("1 + 'a'", "found no matching overload for '_+_' applied to '(int, string)'"),
        ("1 > '1'", "found no matching overload for '_>_' applied to '(int, string)'"),
        ("request.name > 1", "found no matching overload for '_>_' applied to '(string, int)'"),
        ("request.nothing == ''", "undefined field 'nothing'"),
        ("request.userInfo.nothing == ''", "undefined field 'nothing'"),
        ("namespaceObject.metadata.managedFields", "undefined field 'managedFields'"),
        ("variables.x", "undefined field 'x'"),
        ("has(object)", "invalid argument to has() macro"),
        ("object.list.all(a.b, true)", "argument must be a simple name"),
        ("'abc", "the string does not end"),
        ("'\\q'", "invalid escape sequence"),
        ("99999999999999999999", "invalid int literal"),
        ("9223372036854775808", "invalid int literal"),
        ("let == 1", "reserved identifier: let"),
        ("[1].all(x, x)", "expected type 'bool' but found 'int'"),
        ("!1", "found no matching overload for '!_' applied to '(int)'"),
        ("1 && true", "found no matching overload for '_&&_'"),
        ("'a'.matches('(')", "invalid matches argument"),
        ("Other{a: 1}", "undeclared reference to 'Other'"),
        ("JSONPatch{nothing: 1}", "undefined field 'nothing'"),
        ("timestamp('2024-01-01T00:00:00Z').getHours('Europe/Berlin')", "getHours with a time zone is not supported by this server"),
        ("[1, 2].sortBy(x, x)", "undeclared reference to"),
    ] {
        let error = evaluated(text).unwrap_err();
        assert!(error.contains(part) && error.starts_with("compilation failed: ERROR: <input>:"), "{text}: {error}");
    }
    let wanted = |text: &str, wanted| Expression::compile(text, wanted, &declared(), &Variables::default()).map(|_| ());
    assert_eq!(wanted("'a'", Wanted::Bool), Err("must evaluate to bool but got string".to_owned()));
    assert_eq!(wanted("1", Wanted::Text), Err("must evaluate to string but got int".to_owned()));
    assert_eq!(wanted("1", Wanted::TextOrNull), Err("must evaluate to one of [string null_type] but got int".to_owned()));
    assert!(wanted("[JSONPatch{op: 'add', path: '/a'}]", Wanted::Patches).is_ok() && wanted("[1]", Wanted::Patches).is_err());
    assert!(wanted("Object{}", Wanted::Object).is_ok() && wanted("Object.spec{}", Wanted::Object).is_err());
    let without = Declared::new(false, false);
    for text in ["params.x == 1", "authorizer.path('/x').check('get').allowed()", "Object{} == Object{}"] {
        let error = Expression::compile(text, Wanted::Bool, &without, &Variables::default()).unwrap_err();
        assert!(error.contains("undeclared reference to"), "{error}");
    }
}

#[test]
fn an_error_shows_where_it_is() {
    let error = evaluated("object.spec.replicas > 1 &&\n  nothing == 2").unwrap_err();
    assert_eq!(
        error,
        "compilation failed: ERROR: <input>:2:3: undeclared reference to 'nothing' (in container '')\n |   nothing == 2\n | ..^"
    );
}

/// The compiled variables of these names and texts.
fn variables(list: &[(&str, &str)]) -> Variables {
    let mut variables = Variables::default();
    for (name, text) in list {
        match compile(text, &declared(), &variables) {
            Ok((node, of)) => variables.add(name, node, of),
            Err(_) => variables.add_broken(name),
        }
    }
    variables
}

#[test]
fn variables_are_evaluated_when_they_are_needed_and_once() {
    let variables = variables(&[
        ("replicas", "object.spec.replicas"),
        ("odd", "variables.replicas % 2 == 1"),
        ("bad", "object.nothing.at.all"),
        ("shadow", "[1].all(object, variables.odd)"),
    ]);
    let inputs = inputs();
    let mut evaluation = Evaluation::new(&inputs, &variables, POLICY_STEPS);
    let texts = ["variables.odd", "variables.replicas == 3", "[7].all(object, variables.shadow)", "has(variables.odd)"];
    let expressions = texts.map(|text| Expression::compile(text, Wanted::Bool, &declared(), &variables).unwrap());
    for expression in &expressions {
        assert!(matches!(expression.evaluate(&mut evaluation), Ok(Value::Bool(true))), "{}", expression.text());
    }
    let bad = Expression::compile("variables.bad == 1", Wanted::Bool, &declared(), &variables).unwrap();
    let fault = bad.evaluate(&mut evaluation).unwrap_err().to_string();
    assert!(fault.contains("composited variable \"bad\" fails to evaluate: no such key: nothing"), "{fault}");
}

#[test]
fn nothing_that_is_written_in_a_policy_takes_for_ever() {
    // Each doubles, or loops in loops.
    let doubled = vec![("v0", "'0123456789abcdef'".to_owned())].into_iter();
    let names: Vec<String> = (1..64).map(|index| format!("v{index}")).collect();
    let texts: Vec<String> = (0..63).map(|index| format!("variables.v{index} + variables.v{index}")).collect();
    let doubled: Vec<(&str, String)> = doubled.chain(names.iter().map(String::as_str).zip(texts)).collect();
    let doubled: Vec<(&str, &str)> = doubled.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let doubled = variables(&doubled);
    let nested: Vec<String> = (1..64).map(|index| format!("[variables.v{}, variables.v{}]", index - 1, index - 1)).collect();
    let nested: Vec<(&str, &str)> =
        std::iter::once(("v0", "[1]")).chain(names.iter().map(String::as_str).zip(nested.iter().map(String::as_str))).collect();
    let nested = variables(&nested);
    let none = Variables::default();
    let replaced = format!("'x'{}.size() == 0", format!(".replace('x', '{}')", "x".repeat(100)).repeat(4));
    let inputs = inputs();
    for (text, variables) in [
        ("variables.v63 == ''", &doubled),
        ("variables.v63 == []", &nested),
        ("[variables.v63] == []", &nested),
        ("lists.range(10000).all(a, lists.range(10000).all(b, a == b || a != b))", &none),
        ("lists.range(1000000000).size() == 0", &none),
        (replaced.as_str(), &none),
        (
            "lists.range(1000).map(i, 'x' + string(i)).all(p, 'y'.matches(p + '[a-z]{1,100}'))  == true || lists.range(1000).map(i, 'x' + string(i)).all(p, !'y'.matches(p + '[a-z]{1,100}'))",
            &none,
        ),
    ] {
        let expression = Expression::compile(text, Wanted::Bool, &declared(), variables).unwrap();
        let mut evaluation = Evaluation::new(&inputs, variables, POLICY_STEPS);
        let fault = expression.evaluate(&mut evaluation).unwrap_err();
        assert_eq!(fault, Fault::OutOfBudget, "{text}");
    }
}

#[test]
fn nothing_that_is_written_in_a_policy_exhausts_the_stack() {
    for text in [
        format!("{}1{}", "(".repeat(5000), ")".repeat(5000)),
        format!("{}1{}", "[".repeat(5000), "]".repeat(5000)),
        format!("{}true", "true ? true : ".repeat(5000)),
        format!("object{}", ".a".repeat(5000)),
        format!("1{}", " + 1".repeat(5000)),
        format!("{}1{}", "size([".repeat(5000), "])".repeat(5000)),
    ] {
        let error = evaluated(&text).unwrap_err();
        assert!(error.contains("expression recursion limit exceeded"), "{error:.200}");
    }
    assert!(evaluated(&"a".repeat(100_001)).unwrap_err().contains("expression code point size exceeds limit"));
    assert_eq!(evaluated(&format!("{}true", "!".repeat(5000))), Ok(Json::Bool(true)));
    assert_eq!(evaluated(&format!("true{}", " && true".repeat(5000))), Ok(Json::Bool(true)));
    // Variables that refer to the one before them.
    let names: Vec<String> = (0..1000).map(|index| format!("v{index}")).collect();
    let texts: Vec<String> =
        (0..1000).map(|index| if index == 0 { "1".to_owned() } else { format!("variables.v{} + 1", index - 1) }).collect();
    let list: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
    let variables = variables(&list);
    let inputs = inputs();
    let expression = Expression::compile("variables.v999 == 1000", Wanted::Bool, &declared(), &variables).unwrap();
    let mut evaluation = Evaluation::new(&inputs, &variables, POLICY_STEPS);
    let fault = expression.evaluate(&mut evaluation).unwrap_err().to_string();
    assert!(fault.contains("expressions nest too deep"), "{fault:.200}");
}

#[test]
fn a_panic_of_a_library_is_an_error() {
    // An empty needle in bytes panics in the crate; here it has no overload, and others are caught.
    assert!(evaluated("b'abc'.contains(b'')").unwrap_err().contains("no such overload"));
}
