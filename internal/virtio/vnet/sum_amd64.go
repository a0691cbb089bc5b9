package vnet

import "golang.org/x/sys/cpu"

// wide reports whether sumWords can be called: the processor has AVX2.
var wide = cpu.X86.HasAVX2

// sumWords returns the sum of the 32-bit words in b, but for what is left behind the last 128
// bytes. It cannot overflow.
//
//go:noescape
func sumWords(b []byte) uint64
