//! `metadata.managedFields`: who owns which fields (k8s.io/apimachinery/pkg/util/managedfields/internal/managedfields.go).
//!
//! Invariant: no two entries are of one manager, as [`Entry::is_of`] tells them apart, and none is empty.

use serde_json::{Map, Value};

use super::fields::Fields;

/// How a manager writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By every other write.
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// A manager and what it owns.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its name.
    pub manager: String,
    /// How it writes.
    pub operation: Operation,
    /// The version that its fields are fields of, such as `apps/v1`.
    pub api_version: String,
    /// The subresource that it writes; empty for the object itself.
    pub subresource: String,
    /// When it last changed what it owns: RFC 3339, in seconds.
    pub time: Option<String>,
    /// What it owns.
    pub fields: Fields,
}

impl Entry {
    /// Whether both are of one manager: appliers are the same in every version.
    #[must_use]
    pub fn is_of(&self, other: &Self) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    fn parse(given: &Value, at: usize) -> Result<Self, String> {
        let text = |field: &str| given[field].as_str().unwrap_or_default().to_owned();
        let operation = match given["operation"].as_str() {
            Some("Apply") => Operation::Apply,
            Some("Update") => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        if text("apiVersion").is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        match given["fieldsType"].as_str() {
            Some("FieldsV1") => {}
            None | Some("") => return Err(format!("missing fieldsType in managed fields entry {at}")),
            Some(other) => return Err(format!("invalid fieldsType {other:?} in managed fields entry {at}")),
        }
        let fields = Fields::parse(&given["fieldsV1"]).map_err(|why| format!("error decoding set: {why}"))?;
        Ok(Self {
            manager: text("manager"),
            operation,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: given["time"].as_str().map(str::to_owned),
            fields,
        })
    }

    fn stored(value: Value) -> Option<Self> {
        let Value::Object(mut entry) = value else { return None };
        let mut text = |field: &str| match entry.remove(field) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        Some(Self {
            manager: text("manager").unwrap_or_default(),
            operation: match text("operation")?.as_str() {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return None,
            },
            api_version: text("apiVersion")?,
            subresource: text("subresource").unwrap_or_default(),
            time: text("time"),
            fields: Fields::stored(entry.remove("fieldsV1").unwrap_or_default()),
        })
    }

    fn into_value(self) -> Value {
        let mut out = Map::new();
        out.insert("apiVersion".to_owned(), self.api_version.into());
        out.insert("fieldsType".to_owned(), "FieldsV1".into());
        out.insert("fieldsV1".to_owned(), self.fields.into_value());
        if !self.manager.is_empty() {
            out.insert("manager".to_owned(), self.manager.into());
        }
        out.insert("operation".to_owned(), self.operation.as_str().into());
        if !self.subresource.is_empty() {
            out.insert("subresource".to_owned(), self.subresource.into());
        }
        if let Some(time) = self.time {
            out.insert("time".to_owned(), time.into());
        }
        Value::Object(out)
    }
}

/// Update managers that are kept apart; the oldest are joined beyond that.
const UPDATE_MANAGERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// The managers of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managers(Vec<Entry>);

impl Managers {
    /// Reads what a client sent.
    ///
    /// # Errors
    /// The first thing that is wrong with it, in upstream's words.
    pub fn parse(given: &[Value]) -> Result<Self, String> {
        let mut out = Self::default();
        for (at, entry) in given.iter().enumerate() {
            let entry = Entry::parse(entry, at)?;
            match out.0.iter_mut().find(|there| there.is_of(&entry)) {
                Some(there) => *there = entry,
                None => out.0.push(entry),
            }
        }
        Ok(out)
    }

    /// Takes what this server stored.
    #[must_use]
    pub fn stored(entries: Vec<Value>) -> Self {
        Self(entries.into_iter().filter_map(Entry::stored).collect())
    }

    /// What an update starts from (upstream's `decodeLiveOrNew`): the managers that the client sent with the object, if it sent any that can be read, else those
    /// of the live object. An empty list, or a list of one empty entry, resets them.
    #[must_use]
    pub fn of_request(given: Option<&Value>, live: Vec<Value>) -> Self {
        let Some(Value::Array(given)) = given else { return Self::stored(live) };
        let reset = match given.as_slice() {
            [] => true,
            [only] => only.as_object().is_some_and(Map::is_empty),
            _ => false,
        };
        if reset {
            return Self::default();
        }
        if *given == live {
            return Self::stored(live);
        }
        match Self::parse(given) {
            Ok(parsed) if !parsed.is_empty() => parsed,
            _ => Self::stored(live),
        }
    }

    /// Whether nobody owns anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }

    /// `metadata.managedFields`, in upstream's order: appliers first, then by time and name.
    #[must_use]
    pub fn into_value(mut self) -> Value {
        self.0.sort_by(|a, b| order(a).cmp(&order(b)));
        Value::Array(self.0.into_iter().map(Entry::into_value).collect())
    }

    /// Joins the oldest update managers of one version until there are few enough (`capManagersManager`).
    #[must_use]
    pub fn capped(mut self) -> Self {
        let mut count = self.0.iter().filter(|entry| entry.operation == Operation::Update).count();
        if count <= UPDATE_MANAGERS {
            return self;
        }
        let (mut updates, mut rest): (Vec<Entry>, Vec<Entry>) =
            self.0.drain(..).partition(|entry| entry.operation == Operation::Update);
        // What was joined before is the oldest, whatever the time of its last change.
        let age = |entry: &Entry| (entry.manager != ANCIENT, entry.time.clone());
        updates.sort_by(|a, b| age(a).cmp(&age(b)).then_with(|| identity(a).cmp(&identity(b))));
        let mut kept: Vec<Entry> = Vec::new();
        for entry in updates {
            let first = kept.iter_mut().find(|there| there.api_version == entry.api_version);
            match first {
                Some(bucket) if count > UPDATE_MANAGERS => {
                    ANCIENT.clone_into(&mut bucket.manager);
                    bucket.subresource.clear();
                    bucket.fields.add(&entry.fields);
                    bucket.time = entry.time;
                    count -= 1;
                }
                _ => kept.push(entry),
            }
        }
        rest.append(&mut kept);
        Self(rest)
    }

    pub(super) fn entries_mut(&mut self) -> &mut Vec<Entry> {
        &mut self.0
    }

    pub(super) fn from_entries(entries: Vec<Entry>) -> Self {
        Self(entries)
    }
}

fn order(entry: &Entry) -> (Operation, &str, &str, &str, &str) {
    let time = entry.time.as_deref().unwrap_or_default();
    (entry.operation, time, &entry.manager, &entry.api_version, &entry.subresource)
}

fn identity(entry: &Entry) -> (&str, &str, &str) {
    (&entry.manager, &entry.api_version, &entry.subresource)
}

/// What is wrong with the `managedFields` of an object that admission changed.
///
/// # Errors
/// The first thing that is wrong, in upstream's words.
pub fn validate(given: &[Value]) -> Result<(), String> {
    Managers::parse(given).map(|_| ())
}

/// Whether two lists of entries differ in nothing but their times.
#[must_use]
pub fn differ_in_times_only(a: &[Value], b: &[Value]) -> bool {
    let times = a.iter().zip(b).any(|(a, b)| a["time"] != b["time"]);
    times && a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal_but(a, b, "time"))
}

/// Whether two objects are equal but for one field.
fn equal_but(a: &Value, b: &Value, field: &str) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    a.iter().filter(|(key, _)| *key != field).eq(b.iter().filter(|(key, _)| *key != field))
}

/// Whether two objects are equal but for their owners.
#[must_use]
pub fn equal_but_owners(a: &Value, b: &Value) -> bool {
    equal_but(a, b, "metadata") && equal_but(&a["metadata"], &b["metadata"], "managedFields")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry(manager: &str, time: &str, fields: Value) -> Value {
        json!({"manager": manager, "operation": "Update", "apiVersion": "v1", "time": time, "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    #[test]
    fn what_is_wrong_with_an_entry_is_told_in_upstreams_words() {
        let good = entry("a", "2026-11-24T08:00:00Z", json!({"f:spec": {}}));
        for (field, value, why) in [
            ("operation", json!("Patch"), "operation must be `Apply` or `Update`"),
            ("apiVersion", json!(""), "apiVersion must not be empty"),
            ("fieldsType", json!(null), "missing fieldsType in managed fields entry 0"),
            ("fieldsType", json!("FieldsV2"), "invalid fieldsType \"FieldsV2\" in managed fields entry 0"),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            assert_eq!(Managers::parse(&[bad]).unwrap_err(), why);
        }
        assert!(Managers::parse(&[good]).is_ok());
    }

    #[test]
    fn appliers_come_first_and_then_the_oldest() {
        let mut applier = entry("z", "2026-11-24T09:00:00Z", json!({"f:a": {}}));
        applier["operation"] = "Apply".into();
        let list = [
            entry("b", "2026-11-24T08:00:02Z", json!({"f:a": {}})),
            entry("c", "2026-11-24T08:00:01Z", json!({"f:a": {}})),
            entry("a", "2026-11-24T08:00:01Z", json!({"f:a": {}})),
            applier,
        ];
        let sorted = Managers::parse(&list).unwrap().into_value();
        let names: Vec<&str> = sorted.as_array().unwrap().iter().map(|e| e["manager"].as_str().unwrap()).collect();
        assert_eq!(names, ["z", "a", "c", "b"]);
    }

    #[test]
    fn a_client_resets_managers_and_what_it_can_not_say_is_ignored() {
        let live = vec![entry("a", "2026-11-24T08:00:00Z", json!({"f:a": {}}))];
        let of = |given: Option<Value>| Managers::of_request(given.as_ref(), live.clone());
        assert!(of(Some(json!([]))).is_empty());
        assert!(of(Some(json!([{}]))).is_empty());
        assert_eq!(of(None), Managers::stored(live.clone()));
        assert_eq!(of(Some(json!([{"manager": "b"}]))), Managers::stored(live.clone()));
        let other = of(Some(json!([entry("b", "2026-11-24T08:00:00Z", json!({"f:b": {}}))])));
        assert_eq!(other.iter().next().unwrap().manager, "b");
    }

    #[test]
    fn the_oldest_of_many_updates_are_joined() {
        let list: Vec<Value> = (0..12)
            .map(|n| entry(&format!("m{n:02}"), &format!("2026-11-24T08:00:{n:02}Z"), json!({format!("f:{n}"): {}})))
            .collect();
        let capped = Managers::parse(&list).unwrap().capped();
        assert_eq!(capped.iter().count(), 10);
        let ancient = capped.iter().find(|entry| entry.manager == ANCIENT).unwrap();
        assert_eq!(ancient.fields.paths(), [".0", ".1", ".2"]);
        assert_eq!(ancient.time.as_deref(), Some("2026-11-24T08:00:02Z"));
    }

    #[test]
    fn objects_are_equal_whoever_owns_them() {
        let object =
            |owners: Value, x: i64| json!({"metadata": {"name": "a", "managedFields": owners}, "spec": {"x": x}});
        assert!(equal_but_owners(&object(json!([]), 1), &object(json!([1]), 1)));
        assert!(!equal_but_owners(&object(json!([]), 1), &object(json!([]), 2)));
    }

    #[test]
    fn times_alone_are_told_from_other_differences() {
        let a = [entry("a", "2026-11-24T08:00:00Z", json!({"f:a": {}}))];
        let b = [entry("a", "2026-11-24T09:00:00Z", json!({"f:a": {}}))];
        let c = [entry("a", "2026-11-24T09:00:00Z", json!({"f:b": {}}))];
        assert!(differ_in_times_only(&a, &b) && !differ_in_times_only(&a, &a) && !differ_in_times_only(&a, &c));
    }
}
