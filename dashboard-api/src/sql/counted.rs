//! Counts what an operator keeps of its input without counting it itself: windows hold all rows of their partition.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use datafusion::common::DataFusionError;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PhysicalExpr, PlanProperties, SendableRecordBatchStream,
    replace_children_if_necessary,
};
use futures::StreamExt;

/// Passes its input on, and holds as much of the query's memory as has passed until the query is through.
#[derive(Debug)]
pub(super) struct Counted {
    input: Arc<dyn ExecutionPlan>,
}

/// Puts a [`Counted`] below an operator that keeps its input.
pub(super) fn counted(node: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    if node.name() != "WindowAggExec" {
        return Ok(node);
    }
    let children = node.children().into_iter().cloned();
    let children = children.map(|input| Arc::new(Counted { input }) as Arc<dyn ExecutionPlan>).collect();
    replace_children_if_necessary(node, children)
}

impl DisplayAs for Counted {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl ExecutionPlan for Counted {
    fn name(&self) -> &'static str {
        "Counted"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion, DataFusionError>,
    ) -> Result<TreeNodeRecursion, DataFusionError> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        match children.into_iter().next() {
            Some(input) => Ok(Arc::new(Self { input })),
            None => Ok(self),
        }
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream, DataFusionError> {
        let held = MemoryConsumer::new("window").register(context.memory_pool());
        let input = self.input.execute(partition, context)?;
        let schema = input.schema();
        let passed = input.map(move |batch| {
            let batch = batch?;
            held.try_grow(bytes_of(&batch)?)?;
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, passed)))
    }
}

/// What a batch takes by itself, where it is part of a larger one.
fn bytes_of(batch: &RecordBatch) -> Result<usize, DataFusionError> {
    let mut all = 0_usize;
    for column in batch.columns() {
        all = all.saturating_add(column.to_data().get_slice_memory_size()?);
    }
    Ok(all)
}
