"""Where runs are kept: MLflow, and the ledger of run directories."""
