//! What of an expression can be judged without its variables: whether its names are declared, and whether its form gives its type away.

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr, LiteralValue, operators};

use super::Expected;

/// A name that nothing declares, and the node that uses it.
pub(super) struct Undeclared {
    pub(super) id: u64,
    pub(super) name: String,
}

/// Names that are types or constants of CEL and its extensions, not variables.
const TYPES: &[&str] =
    &["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint", "optional_type"];
/// Roots of qualified function names, such as `math.greatest`.
const NAMESPACES: &[&str] =
    &["base64", "lists", "math", "optional", "sets", "strings", "format", "ip", "cidr", "jsonpatch"];

/// The first name that is neither one of `variables`, nor declared by a comprehension around it, nor a type.
pub(super) fn undeclared(expression: &IdedExpr, variables: &[&str]) -> Option<Undeclared> {
    // A qualified variable declares its root too: `variables.a` is reached by selecting `a` on `variables`.
    let roots = variables.iter().map(|name| name.split('.').next().unwrap_or(name));
    let mut scope: Vec<String> = roots.map(str::to_owned).collect();
    find(expression, variables, &mut scope)
}

fn find(expression: &IdedExpr, variables: &[&str], scope: &mut Vec<String>) -> Option<Undeclared> {
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) => None,
        Expr::Ident(name) => {
            let plain = name.strip_prefix('.').unwrap_or(name);
            let known = plain.starts_with('@')
                || scope.iter().any(|declared| declared == plain)
                || TYPES.contains(&plain)
                || NAMESPACES.contains(&plain);
            (!known).then(|| Undeclared { id: expression.id, name: plain.to_owned() })
        }
        Expr::Select(select) => {
            if let Expr::Ident(root) = &select.operand.expr
                && root == "variables"
                && scope.iter().any(|declared| declared == root)
            {
                let qualified = format!("variables.{}", select.field);
                let known = variables.contains(&qualified.as_str());
                return (!known).then_some(Undeclared { id: expression.id, name: qualified });
            }
            find(&select.operand, variables, scope)
        }
        Expr::Call(call) => {
            let mut inner = call.target.iter().map(|target| &**target).chain(&call.args);
            inner.find_map(|argument| find(argument, variables, scope))
        }
        Expr::List(list) => list.elements.iter().find_map(|element| find(element, variables, scope)),
        Expr::Map(map) => entries(map.entries.iter().map(|entry| &entry.expr), variables, scope),
        Expr::Struct(structure) => entries(structure.entries.iter().map(|entry| &entry.expr), variables, scope),
        Expr::Comprehension(comprehension) => {
            let outside = find(&comprehension.iter_range, variables, scope)
                .or_else(|| find(&comprehension.accu_init, variables, scope));
            if outside.is_some() {
                return outside;
            }
            let depth = scope.len();
            scope.push(comprehension.iter_var.clone());
            scope.extend(comprehension.iter_var2.clone());
            scope.push(comprehension.accu_var.clone());
            let parts = [&comprehension.loop_cond, &comprehension.loop_step, &comprehension.result];
            let inside = parts.into_iter().find_map(|part| find(part, variables, scope));
            scope.truncate(depth);
            inside
        }
    }
}

fn entries<'a>(
    mut entries: impl Iterator<Item = &'a EntryExpr>,
    variables: &[&str],
    scope: &mut Vec<String>,
) -> Option<Undeclared> {
    entries.find_map(|entry| match entry {
        EntryExpr::StructField(field) => find(&field.value, variables, scope),
        EntryExpr::MapEntry(entry) => {
            find(&entry.key, variables, scope).or_else(|| find(&entry.value, variables, scope))
        }
    })
}

/// The wanted type's name and the one that is there, where the expression is plainly of another.
pub(super) fn mismatch(expression: &IdedExpr, expected: Expected) -> Option<(&'static str, &'static str)> {
    let found = plain_type(expression)?;
    let (fits, wanted) = match expected {
        Expected::Any => return None,
        Expected::Bool => (found == "bool", "bool"),
        Expected::String => (found == "string", "string"),
        Expected::StringOrNull => (found == "string" || found == "null_type", "one of [string null_type]"),
    };
    (!fits).then_some((wanted, found))
}

/// The type of an expression whose form gives it away.
fn plain_type(expression: &IdedExpr) -> Option<&'static str> {
    match &expression.expr {
        Expr::Literal(literal) => Some(match literal {
            LiteralValue::Boolean(_) => "bool",
            LiteralValue::Bytes(_) => "bytes",
            LiteralValue::Double(_) => "double",
            LiteralValue::Int(_) => "int",
            LiteralValue::Null => "null_type",
            LiteralValue::String(_) => "string",
            LiteralValue::UInt(_) => "uint",
        }),
        Expr::List(_) => Some("list"),
        Expr::Map(_) => Some("map"),
        Expr::Select(select) if select.test => Some("bool"),
        Expr::Call(call) => match call.func_name.as_str() {
            operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::EQUALS
            | operators::NOT_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS
            | operators::IN => Some("bool"),
            operators::ADD => {
                let types: Vec<_> = call.args.iter().map(plain_type).collect();
                types.into_iter().flatten().next()
            }
            operators::CONDITIONAL => call.args.get(1).and_then(plain_type),
            "string" if call.target.is_none() => Some("string"),
            "size" => Some("int"),
            _ => None,
        },
        Expr::Unspecified | Expr::Ident(_) | Expr::Struct(_) | Expr::Comprehension(_) | Expr::Select(_) => None,
    }
}
