// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

import "./Managed.sol";

/// Senders' deposits and reserves, and the redemption of winning tickets out of them.
contract TicketBroker is Managed {
    uint256 private constant HALF_ORDER =
        0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    struct Ticket {
        address recipient;
        address sender;
        uint256 faceValue;
        uint256 winProb;
        uint256 senderNonce;
        bytes32 recipientRandHash;
        bytes auxData;
    }

    struct Sender {
        uint256 deposit;
        uint256 withdrawRound;
    }

    struct ReserveInfo {
        uint256 fundsRemaining;
        uint256 claimedInCurrentRound;
    }

    struct Reserve {
        uint256 funds;
        mapping(uint256 => uint256) claimedForRound;
        mapping(uint256 => mapping(address => uint256)) claimedByAddress;
    }

    event DepositFunded(address indexed sender, uint256 amount);
    event ReserveFunded(address indexed reserveHolder, uint256 amount);
    event ReserveClaimed(address indexed reserveHolder, address claimant, uint256 amount);
    event Unlock(address indexed sender, uint256 startRound, uint256 endRound);
    event UnlockCancelled(address indexed sender);
    event Withdrawal(address indexed sender, uint256 deposit, uint256 reserve);
    event WinningTicketTransfer(address indexed sender, address indexed recipient, uint256 amount);
    event WinningTicketRedeemed(
        address indexed sender,
        address indexed recipient,
        uint256 faceValue,
        uint256 winProb,
        uint256 senderNonce,
        uint256 recipientRand,
        bytes auxData
    );

    uint256 public unlockPeriod;
    uint256 public ticketValidityPeriod;
    mapping(bytes32 => bool) public usedTickets;
    mapping(address => Sender) private senders;
    mapping(address => Reserve) private reserves;

    constructor(address _controller, uint256 _unlockPeriod, uint256 _ticketValidityPeriod)
        Managed(_controller)
    {
        unlockPeriod = _unlockPeriod;
        ticketValidityPeriod = _ticketValidityPeriod;
    }

    function setUnlockPeriod(uint256 _unlockPeriod) external onlyControllerOwner {
        unlockPeriod = _unlockPeriod;
        emit ParameterUpdate("unlockPeriod");
    }

    function setTicketValidityPeriod(uint256 _ticketValidityPeriod) external onlyControllerOwner {
        require(_ticketValidityPeriod > 0, "ticketValidityPeriod must be greater than 0");
        ticketValidityPeriod = _ticketValidityPeriod;
        emit ParameterUpdate("ticketValidityPeriod");
    }

    // Funding

    function fundDeposit() external payable whenSystemNotPaused {
        stayLocked(msg.sender);
        addDeposit(msg.sender, msg.value);
        minter().depositETH{value: msg.value}();
    }

    function fundReserve() external payable whenSystemNotPaused {
        stayLocked(msg.sender);
        addReserve(msg.sender, msg.value);
        minter().depositETH{value: msg.value}();
    }

    function fundDepositAndReserve(uint256 depositAmount, uint256 reserveAmount)
        external
        payable
        whenSystemNotPaused
    {
        stayLocked(msg.sender);
        fundBoth(msg.sender, depositAmount, reserveAmount);
    }

    /// A stranger's money does not cancel the sender's unlock.
    function fundDepositAndReserveFor(address addr, uint256 depositAmount, uint256 reserveAmount)
        external
        payable
        whenSystemNotPaused
    {
        if (addr == msg.sender) stayLocked(addr);
        fundBoth(addr, depositAmount, reserveAmount);
    }

    // Leaving

    function unlock() external whenSystemNotPaused {
        Sender storage sender = senders[msg.sender];
        require(
            sender.deposit > 0 || reserves[msg.sender].funds > 0,
            "sender deposit and reserve are zero"
        );
        require(sender.withdrawRound == 0, "unlock already initiated");
        uint256 round = roundsManager().currentRound();
        sender.withdrawRound = round + unlockPeriod;
        emit Unlock(msg.sender, round, sender.withdrawRound);
    }

    function cancelUnlock() external whenSystemNotPaused {
        require(senders[msg.sender].withdrawRound > 0, "no unlock request in progress");
        stayLocked(msg.sender);
    }

    /// Leaves withdrawRound as it is: only the sender's own funding locks it again.
    function withdraw() external whenSystemNotPaused {
        Sender storage sender = senders[msg.sender];
        uint256 deposit = sender.deposit;
        uint256 reserve = reserves[msg.sender].funds;
        require(deposit > 0 || reserve > 0, "sender deposit and reserve are zero");
        require(sender.withdrawRound > 0, "no unlock request in progress");
        require(!isLocked(sender), "account is locked");
        sender.deposit = 0;
        reserves[msg.sender].funds = 0;
        minter().trustedWithdrawETH(payable(msg.sender), deposit + reserve);
        emit Withdrawal(msg.sender, deposit, reserve);
    }

    // Redeeming

    function redeemWinningTicket(Ticket memory _ticket, bytes memory _sig, uint256 _recipientRand)
        public
        whenSystemNotPaused
        whenRoundInitialized
    {
        bytes32 ticketHash = getTicketHash(_ticket);
        requireWinner(_ticket, ticketHash, _sig, _recipientRand);
        Sender storage sender = senders[_ticket.sender];
        require(isLocked(sender), "sender is unlocked");
        require(
            sender.deposit > 0 || reserves[_ticket.sender].funds > 0,
            "sender deposit and reserve are zero"
        );
        usedTickets[ticketHash] = true;
        uint256 amount = _ticket.faceValue;
        if (amount <= sender.deposit) {
            sender.deposit -= amount;
        } else {
            uint256 missing = amount - sender.deposit;
            amount = sender.deposit + claim(_ticket.sender, _ticket.recipient, missing);
            sender.deposit = 0;
        }
        if (amount > 0) {
            bondingManager().updateTranscoderWithFees(
                _ticket.recipient, amount, roundsManager().currentRound()
            );
            emit WinningTicketTransfer(_ticket.sender, _ticket.recipient, amount);
        }
        emit WinningTicketRedeemed(
            _ticket.sender,
            _ticket.recipient,
            _ticket.faceValue,
            _ticket.winProb,
            _ticket.senderNonce,
            _recipientRand,
            _ticket.auxData
        );
    }

    /// Tickets that cannot be redeemed are passed over in silence.
    function batchRedeemWinningTickets(
        Ticket[] memory _tickets,
        bytes[] memory _sigs,
        uint256[] memory _recipientRands
    ) external whenSystemNotPaused whenRoundInitialized {
        for (uint256 i = 0; i < _tickets.length; i++) {
            try this.redeemWinningTicket(_tickets[i], _sigs[i], _recipientRands[i]) {} catch {}
        }
    }

    // What can be asked

    function getTicketHash(Ticket memory _ticket) public pure returns (bytes32) {
        return keccak256(
            abi.encodePacked(
                _ticket.recipient,
                _ticket.sender,
                _ticket.faceValue,
                _ticket.winProb,
                _ticket.senderNonce,
                _ticket.recipientRandHash,
                _ticket.auxData
            )
        );
    }

    function isUnlockInProgress(address addr) external view returns (bool) {
        return senders[addr].withdrawRound > 0;
    }

    function getSenderInfo(address addr)
        external
        view
        returns (Sender memory sender, ReserveInfo memory reserve)
    {
        sender = senders[addr];
        reserve = getReserveInfo(addr);
    }

    function getReserveInfo(address addr) public view returns (ReserveInfo memory info) {
        Reserve storage reserve = reserves[addr];
        info.fundsRemaining = reserve.funds;
        info.claimedInCurrentRound = reserve.claimedForRound[roundsManager().currentRound()];
    }

    function claimableReserve(address holder, address claimant) public view returns (uint256) {
        uint256 size = bondingManager().getTranscoderPoolSize();
        if (size == 0 || !bondingManager().isActiveTranscoder(claimant)) return 0;
        Reserve storage reserve = reserves[holder];
        uint256 round = roundsManager().currentRound();
        return (reserve.funds + reserve.claimedForRound[round]) / size
            - reserve.claimedByAddress[round][claimant];
    }

    function claimedReserve(address holder, address claimant) external view returns (uint256) {
        return reserves[holder].claimedByAddress[roundsManager().currentRound()][claimant];
    }

    // Inside

    function stayLocked(address addr) private {
        if (senders[addr].withdrawRound == 0) return;
        senders[addr].withdrawRound = 0;
        emit UnlockCancelled(addr);
    }

    function addDeposit(address addr, uint256 amount) private {
        senders[addr].deposit += amount;
        emit DepositFunded(addr, amount);
    }

    function addReserve(address addr, uint256 amount) private {
        reserves[addr].funds += amount;
        emit ReserveFunded(addr, amount);
    }

    function fundBoth(address addr, uint256 depositAmount, uint256 reserveAmount) private {
        require(
            msg.value == depositAmount + reserveAmount,
            "msg.value does not equal sum of deposit amount and reserve amount"
        );
        addDeposit(addr, depositAmount);
        addReserve(addr, reserveAmount);
        minter().depositETH{value: msg.value}();
    }

    function isLocked(Sender storage sender) private view returns (bool) {
        return sender.withdrawRound == 0 || roundsManager().currentRound() < sender.withdrawRound;
    }

    function claim(address holder, address claimant, uint256 wanted) private returns (uint256) {
        uint256 claimable = claimableReserve(holder, claimant);
        uint256 amount = wanted < claimable ? wanted : claimable;
        if (amount > 0) {
            Reserve storage reserve = reserves[holder];
            uint256 round = roundsManager().currentRound();
            reserve.claimedForRound[round] += amount;
            reserve.claimedByAddress[round][claimant] += amount;
            reserve.funds -= amount;
            emit ReserveClaimed(holder, claimant, amount);
        }
        return amount;
    }

    function requireWinner(
        Ticket memory _ticket,
        bytes32 ticketHash,
        bytes memory _sig,
        uint256 _recipientRand
    ) private view {
        require(_ticket.recipient != address(0), "ticket recipient is null address");
        require(_ticket.sender != address(0), "ticket sender is null address");
        requireUnexpired(_ticket.auxData);
        require(
            keccak256(abi.encodePacked(_recipientRand)) == _ticket.recipientRandHash,
            "recipientRand does not match recipientRandHash"
        );
        require(!usedTickets[ticketHash], "ticket is used");
        require(
            recover(ticketHash, _sig) == _ticket.sender, "invalid signature over ticket hash"
        );
        require(
            uint256(keccak256(abi.encodePacked(_sig, _recipientRand))) < _ticket.winProb,
            "ticket did not win"
        );
    }

    function requireUnexpired(bytes memory auxData) private view {
        require(auxData.length == 64, "invalid length for ticket auxData: must be 64 bytes");
        (uint256 round, bytes32 hash) = abi.decode(auxData, (uint256, bytes32));
        bytes32 stored = roundsManager().blockHashForRound(round);
        require(stored != bytes32(0), "ticket creationRound does not have a block hash");
        require(stored == hash, "ticket creationRoundBlockHash invalid for creationRound");
        require(
            round + ticketValidityPeriod > roundsManager().currentRound(), "ticket is expired"
        );
    }

    function recover(bytes32 ticketHash, bytes memory _sig) private pure returns (address) {
        require(_sig.length == 65, "INVALID_SIGNATURE_LENGTH");
        bytes32 r;
        bytes32 s;
        uint8 v;
        assembly {
            r := mload(add(_sig, 32))
            s := mload(add(_sig, 64))
            v := byte(0, mload(add(_sig, 96)))
        }
        require(uint256(s) <= HALF_ORDER, "ECDSA: invalid signature 's' value");
        require(v == 27 || v == 28, "ECDSA: invalid signature 'v' value");
        bytes32 digest = keccak256(abi.encodePacked("\x19Ethereum Signed Message:\n32", ticketHash));
        address signer = ecrecover(digest, v, r, s);
        require(signer != address(0), "ECDSA: invalid signature");
        return signer;
    }
}
