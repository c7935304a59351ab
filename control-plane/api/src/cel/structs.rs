//! The structures that expressions of patches build, `Object{…}`, `Object.spec{…}` and `JSONPatch{…}`, as maps: what they hold is checked against the schema when
//! the patch is applied.

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr, IdedEntryExpr, LiteralValue, MapEntryExpr, MapExpr};

/// Makes maps of all structures.
///
/// # Errors
/// The name of a structure that is none of these.
pub(super) fn as_maps(expression: &mut IdedExpr) -> Result<(), String> {
    let id = expression.id;
    match &mut expression.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => {}
        Expr::Select(select) => as_maps(&mut select.operand)?,
        Expr::Call(call) => {
            if let Some(target) = &mut call.target {
                as_maps(target)?;
            }
            call.args.iter_mut().try_for_each(as_maps)?;
        }
        Expr::List(list) => list.elements.iter_mut().try_for_each(as_maps)?,
        Expr::Map(map) => entries(&mut map.entries)?,
        Expr::Comprehension(comprehension) => {
            as_maps(&mut comprehension.iter_range)?;
            as_maps(&mut comprehension.accu_init)?;
            as_maps(&mut comprehension.loop_cond)?;
            as_maps(&mut comprehension.loop_step)?;
            as_maps(&mut comprehension.result)?;
        }
        Expr::Struct(structure) => {
            let name = structure.type_name.trim_start_matches('.');
            if name != "JSONPatch" && name.split('.').next() != Some("Object") {
                return Err(name.to_owned());
            }
            let mut fields = std::mem::take(&mut structure.entries);
            entries(&mut fields)?;
            let as_entry = |field: IdedEntryExpr| IdedEntryExpr {
                id: field.id,
                expr: match field.expr {
                    EntryExpr::StructField(field) => EntryExpr::MapEntry(MapEntryExpr {
                        key: IdedExpr { id, expr: Expr::Literal(LiteralValue::String(field.field.into())) },
                        value: field.value,
                        optional: field.optional,
                    }),
                    entry @ EntryExpr::MapEntry(_) => entry,
                },
            };
            expression.expr = Expr::Map(MapExpr { entries: fields.into_iter().map(as_entry).collect() });
        }
    }
    Ok(())
}

fn entries(entries: &mut [IdedEntryExpr]) -> Result<(), String> {
    entries.iter_mut().try_for_each(|entry| match &mut entry.expr {
        EntryExpr::StructField(field) => as_maps(&mut field.value),
        EntryExpr::MapEntry(entry) => as_maps(&mut entry.key).and_then(|()| as_maps(&mut entry.value)),
    })
}
