//go:build !amd64

package vnet

// wide reports whether sumWords can be called.
var wide = false

func sumWords([]byte) uint64 { panic("only for amd64") }
