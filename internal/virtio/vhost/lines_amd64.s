//go:build !race

#include "go_asm.h"
#include "textflag.h"

// A store has release order on amd64.
//
// func storeRelease(p *uint32, v uint32)
TEXT ·storeRelease(SB), NOSPLIT, $0-12
	MOVQ p+0(FP), AX
	MOVL v+8(FP), BX
	MOVL BX, (AX)
	RET

// func claim(row []Single)
TEXT ·claim(SB), NOSPLIT, $0-24
	MOVQ row_base+0(FP), AX
	MOVQ row_len+8(FP), CX
	JMP  test

next:
	MOVQ (Single_Buffer+Buffer_Bytes)(AX), BX
	BYTE $0x0f; BYTE $0x0d; BYTE $0x0b             // PREFETCHW (BX)
	BYTE $0x0f; BYTE $0x0d; BYTE $0x4b; BYTE $0x40 // PREFETCHW 64(BX)
	ADDQ $Single__size, AX
	DECQ CX

test:
	TESTQ CX, CX
	JNE   next
	RET
