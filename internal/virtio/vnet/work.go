package vnet

import "github.com/vswitch/vswitch/port"

// Work is what must be done to a frame before a port can take it.
type Work uint8

const (
	Pass     Work = iota // nothing
	Checksum             // Complete or CompleteTo
	Segment              // a Segmenter
)

// Plan returns what must be done to a frame with offload o for a port with caps. A
// segmentation type that no port supports goes to the Segmenter, which refuses it.
func Plan(o port.Offload, caps port.Caps) Work {
	switch lacks := o.Needs() &^ caps; {
	case lacks == 0:
		return Pass
	case o.IsGSO():
		return Segment
	}
	return Checksum
}
