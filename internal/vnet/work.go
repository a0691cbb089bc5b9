package vnet

import "github.com/vswitch/vswitch/port"

// Work is what has to be done to a frame before a port can take it.
type Work uint8

const (
	Pass     Work = iota // nothing: it goes as it is
	Checksum             // Complete or CompleteTo
	Segment              // a Segmenter
)

// Plan tells what has to be done to a frame with offload o for a port with caps.
// A type of segmentation that no port has is left to the Segmenter, which refuses it.
func Plan(o port.Offload, caps port.Caps) Work {
	switch lacks := o.Needs() &^ caps; {
	case lacks == 0:
		return Pass
	case o.IsGSO():
		return Segment
	}
	return Checksum
}
