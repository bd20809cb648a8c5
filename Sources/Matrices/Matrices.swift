// Matrices
