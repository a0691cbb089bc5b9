package vnet

// Narrow makes Sum do without AVX2 until restore is called.
func Narrow() (restore func()) {
	was := wide
	wide = false
	return func() { wide = was }
}
