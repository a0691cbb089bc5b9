package guestimg

import (
	"fmt"
	"io"
)

// File types of the newc archive, as in st_mode (inode(7)).
const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
	typeChar = 0o020000
)

// cpioWriter writes an archive in the newc format, which the kernel unpacks as initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst). The first error stops it, and
// Close returns that error.
type cpioWriter struct {
	w    io.Writer
	ino  uint32
	made map[string]bool
	err  error
}

func newCPIO(w io.Writer) *cpioWriter {
	return &cpioWriter{w: w, made: map[string]bool{}}
}

// Dir adds a directory and its parents; existing ones are unchanged.
func (c *cpioWriter) Dir(name string) {
	for i := range len(name) {
		if name[i] == '/' {
			c.dir(name[:i])
		}
	}
	c.dir(name)
}

func (c *cpioWriter) dir(name string) {
	if name != "" && !c.made[name] {
		c.made[name] = true
		c.entry(name, typeDir|0o755, 0, 0, nil)
	}
}

// File adds a regular file.
func (c *cpioWriter) File(name string, perm uint32, data []byte) {
	c.entry(name, typeFile|perm, 0, 0, data)
}

// Link adds a symbolic link.
func (c *cpioWriter) Link(name, target string) {
	c.entry(name, typeLink|0o777, 0, 0, []byte(target))
}

// CharDevice adds a device node.
func (c *cpioWriter) CharDevice(name string, perm, major, minor uint32) {
	c.entry(name, typeChar|perm, major, minor, nil)
}

// Close ends the archive.
func (c *cpioWriter) Close() error {
	c.entry("TRAILER!!!", 0, 0, 0, nil)
	return c.err
}

func (c *cpioWriter) entry(name string, mode, rmajor, rminor uint32, data []byte) {
	if c.err != nil {
		return
	}
	c.ino++
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.ino, mode, 0, 0, 1, 0, len(data), 0, 0, rmajor, rminor, len(name)+1, 0, name)
	c.padded([]byte(head))
	c.padded(data)
}

// padded writes b and zeros up to the next multiple of four bytes.
func (c *cpioWriter) padded(b []byte) {
	for _, part := range [][]byte{b, make([]byte, -len(b)&3)} {
		if c.err == nil && len(part) > 0 {
			_, c.err = c.w.Write(part)
		}
	}
}
