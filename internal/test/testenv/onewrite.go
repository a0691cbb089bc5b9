package testenv

import (
	"bytes"
	"io"
)

// OneWrite is where a command prints. It fails what is written after the first time, as a pipe does
// whose reader has found what it looks for and ended.
type OneWrite struct{ bytes.Buffer }

// Write implements io.Writer.
func (o *OneWrite) Write(b []byte) (int, error) {
	if o.Len() > 0 {
		return 0, io.ErrClosedPipe
	}
	return o.Buffer.Write(b)
}
