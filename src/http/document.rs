//! One OpenAPI document of many that were written apart.
//!
//! Owns what makes them fit: two documents may both have a `Message`, so a dialect's schemas carry its name; and a value that
//! fits two shapes is documented as any of them. Refuses to know what the routes do. Invariant: a name in the document means
//! one schema (a test looks at all of them).

use serde_json::{Map, Value};
use utoipa::openapi::OpenApi;

const SCHEMAS: &str = "#/components/schemas/";

/// The head and all parts as one document. A part with a name is a dialect, whose schemas carry it: `chats.Message`.
#[must_use]
pub fn of_parts<'a>(head: &OpenApi, parts: impl IntoIterator<Item = (&'a str, &'a OpenApi)>) -> Value {
    let mut whole = as_json(head);
    for (dialect, part) in parts {
        let mut part = as_json(part);
        if !dialect.is_empty() {
            name_schemas(&mut part, dialect);
        }
        each_object(&mut part, &mut correct);
        for place in ["/paths", "/components/schemas"] {
            if let Some(Value::Object(more)) = part.pointer_mut(place).map(Value::take) {
                add(&mut whole, place, more);
            }
        }
    }
    whole
}

/// Plain structs with text keys always become JSON.
fn as_json(document: &OpenApi) -> Value {
    serde_json::to_value(document).unwrap_or_default()
}

/// Adds members to the object at a place; a path that is there gets the methods it lacks.
fn add(whole: &mut Value, place: &str, more: Map<String, Value>) {
    let mut at = whole;
    for name in place.split('/').skip(1) {
        at = &mut at[name];
    }
    for (name, value) in more {
        match (at.get_mut(&name), value) {
            (Some(Value::Object(there)), Value::Object(methods)) if place == "/paths" => there.extend(methods),
            (_, value) => at[name] = value,
        }
    }
}

fn name_schemas(json: &mut Value, dialect: &str) {
    if let Some(schemas) = json.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        let named = std::mem::take(schemas).into_iter().map(|(key, schema)| (format!("{dialect}.{key}"), schema));
        *schemas = named.collect();
    }
    each_object(json, &mut |object| {
        if let Some(Value::String(link)) = object.get_mut("$ref")
            && let Some(name) = link.strip_prefix(SCHEMAS)
        {
            *link = format!("{SCHEMAS}{dialect}.{name}");
        }
    });
}

/// What the generator says otherwise than the server does.
fn correct(object: &mut Map<String, Value>) {
    // `oneOf` is exactly one: it refuses a message where an empty object is the other choice.
    if let Some(choices) = object.remove("oneOf") {
        object.insert("anyOf".to_owned(), choices);
    }
    // An optional field of a generic type may be `null` too; the envelope of relation is the one that has such a field.
    if let Some(Value::Object(fields)) = object.get_mut("properties")
        && ["code", "desc"].iter().all(|name| fields.contains_key(*name))
        && let Some(data) = fields.get_mut("data")
        && data.get("anyOf").is_none()
    {
        *data = serde_json::json!({ "anyOf": [data.take(), { "type": "null" }] });
    }
}

fn each_object(json: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    match json {
        Value::Object(object) => {
            change(object);
            object.values_mut().for_each(|value| each_object(value, change));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| each_object(value, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_name_means_one_schema() {
        let mut found: BTreeMap<String, Value> = BTreeMap::new();
        for (dialect, part) in crate::http::parts() {
            let json = of_parts(&OpenApi::default(), [(dialect, part.get_openapi())]);
            let schemas = json.pointer("/components/schemas").and_then(Value::as_object).cloned().unwrap_or_default();
            for (name, schema) in schemas {
                let first = found.entry(name.clone()).or_insert_with(|| schema.clone());
                assert_eq!(*first, schema, "{name} means two things");
            }
        }
        assert!(found.contains_key("chats.Message") && found.contains_key("relation.Message"), "{:?}", found.keys());
    }

    #[test]
    fn nothing_is_lost_in_the_whole() {
        let whole = crate::http::openapi();
        let methods = |json: &Value| -> usize {
            let paths = json["paths"].as_object().expect("paths");
            paths.values().map(|path| path.as_object().map_or(0, Map::len)).sum()
        };
        let parts = crate::http::parts();
        let of_parts: usize = parts.iter().map(|(_, part)| methods(&as_json(part.get_openapi()))).sum();
        assert_eq!(methods(&whole), of_parts);
        assert_eq!(whole["openapi"], "3.1.0");
        assert!(whole["components"]["securitySchemes"].is_object() && whole["info"]["title"].is_string());
    }

    #[test]
    fn every_link_leads_somewhere() {
        let mut json = crate::http::openapi();
        let mut links = Vec::new();
        each_object(&mut json, &mut |object| {
            links.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned))
        });
        assert!(links.len() > 100, "{}", links.len());
        for link in links {
            let place = link.strip_prefix('#').expect("in this document");
            assert!(json.pointer(place).is_some(), "{link}");
        }
    }
}
