"""Words learnt, drawn and scored by hand: the command `draw`, and what `import ti_pipeline as ti` offers programs and notebooks."""
