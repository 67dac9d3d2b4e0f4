"""Full data sets come in, the embedded files go out, remade or tried against others."""
